"""Size of a fleet up to which its broker is good for it, and warnings before and beyond that.

The documentation names the sizes (docs/embedded-broker.md, docs/scaling.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from broker_config.sizes import MOST_QUEUED_FOR
from gateway.broker.mosquitto import managed
from gateway.errors import StoreError
from gateway.settings.types import EMBEDDED, MOSQUITTO
from gateway.store import Purpose, Store, View, gauge_sql, outbox_sql

if TYPE_CHECKING:
    from gateway.settings.loading import Settings

log = structlog.get_logger()

LOOKED_AT_EVERY_SECONDS: Final = 300.0
SAID_EVERY: Final = 288
"""Number of checks until the warning is repeated: a day."""
WARNED_FROM_PERCENT: Final = 80
EXCEEDED: Final = "broker.capacity_exceeded"
NEARLY_REACHED: Final = "broker.capacity_nearly_reached"


class CapacityWarning(NamedTuple):
    """The name of the event in the log, and a sentence."""

    event: str
    message: str


class Capacity(NamedTuple):
    """What is counted at a broker, how much of it the broker is good for, what limits it and why, and what to do then.

    ``name`` is the name of the doctor's finding. ``counted`` takes the broker's id.
    """

    name: str
    unit: str
    counted: Callable[[View, str], int]
    most: int
    limited_by: str
    why: str
    remedy: str

    def warning(self, number: int) -> CapacityWarning | None:
        """Return the warning for so many, or None below 80 % of the limit."""
        if number > self.most:
            says = f"There are {number} {self.unit}, and {self.limited_by} is good for {self.most}"
            return CapacityWarning(EXCEEDED, f"{says}: {self.why}")
        if number * 100 >= self.most * WARNED_FROM_PERCENT > 0:
            part = f"{number * 100 // self.most} % of what {self.limited_by} is good for"
            says = f"There are {number} {self.unit}, {part} ({self.most})"
            return CapacityWarning(NEARLY_REACHED, f"{says}: {self.why}")
        return None


_SIZE: Final = "size of the fleet"
_BOUND: Final = "bound devices"

EMBEDDED_BROKER: Final = Capacity(
    _SIZE,
    _BOUND,
    gauge_sql.bound_at,
    500,  # half of the connections that it accepts
    "the embedded broker",
    "it keeps nothing over a restart, and takes 1,000 connections at most.",
    "Move to Mosquitto while there is time: --broker mosquitto where it is installed, or 'gateway broker init' for one "
    "beside the gateway ('gateway docs mosquitto'). Devices notice nothing but a reconnect.",
)
PASSWORD_FILE: Final = Capacity(
    _SIZE,
    _BOUND,
    gauge_sql.bound_at,
    # With 100,000 users a revoked session ended after 0.3 s, with a million after 9 s. It must end within a second
    # (contract, section 1).
    100_000,
    "Mosquitto's password file",
    "Mosquitto reads all of it at each change of a token, and serves no client meanwhile. In a larger fleet a revoked "
    "session may live for longer than a second.",
    "Use a broker that asks the gateway instead of a password file ('gateway docs other-brokers'), or several brokers "
    "with cells = home ('gateway docs scaling').",
)


def retained_states(mirrored: frozenset[str]) -> Capacity:
    """Return how many retained messages for integrators one Mosquitto is good for, where these are mirrored."""
    return Capacity(
        "retained states",
        "retained states and announcements",
        lambda view, broker_id: gauge_sql.mirrored_at(view, broker_id, mirrored),
        # A save takes 2.5 microseconds for each. With the password file of 100,000 devices, which takes 0.3 s, that
        # leaves a margin in the second of the contract.
        MOST_QUEUED_FOR,
        "one Mosquitto",
        "it writes all of them at each save, for half a second with so many, and serves no client meanwhile. It also "
        "holds all of them in memory, about 3 KB each.",
        "Set publish_state = false and let integrators read devices over HTTP and events over MQTT ('gateway docs "
        "integrators'), or use several brokers with cells = home ('gateway docs scaling').",
    )


_CONFIGURATION: Final = (
    "size in mosquitto.conf",
    "devices",
    gauge_sql.devices_at,
)
_OUTGROWN: Final = (
    "its autosave_interval and its limits were written for fewer. In a larger fleet a new subscriber gets some of the "
    "retained states only, and saves take more of Mosquitto's time."
)


def growth(devices: int) -> Capacity:
    """Return how far a fleet may grow after the gateway has written ``mosquitto.conf`` for ``devices`` at its start.

    A queue holds 1.8 times the states of that fleet.
    """
    return Capacity(
        *_CONFIGURATION,
        devices * 3 // 2,
        f"mosquitto.conf, written at the start for {devices},",
        _OUTGROWN,
        "Restart the gateway at a quiet hour: it writes mosquitto.conf for the fleet of that moment ('gateway docs "
        "scaling').",
    )


def configuration(devices: int) -> Capacity:
    """Return how many devices a ``mosquitto.conf`` that an operator wrote for ``devices`` is good for."""
    return Capacity(
        *_CONFIGURATION,
        devices,
        "mosquitto.conf",
        _OUTGROWN,
        "Run 'gateway broker init DIR --devices N' with the size that you expect, and restart Mosquitto and the "
        "gateway. If you wrote mosquitto.conf yourself, set mosquitto_devices to the size that it is good for "
        "('gateway docs scaling').",
    )


def capacities(kind: str, settings: Settings) -> Iterator[Capacity]:
    """Return what limits the fleet at a broker of this kind (``embedded``, ``mosquitto`` or ``external``)."""
    if kind == EMBEDDED:
        yield EMBEDDED_BROKER
    elif kind == MOSQUITTO or settings.mosquitto_password_file is not None:
        yield PASSWORD_FILE
        mirrored = {outbox_sql.STATE: settings.publish_state, outbox_sql.DISCOVERY: settings.home_assistant}
        if settings.publish_state:
            yield retained_states(frozenset(name for name, is_on in mirrored.items() if is_on))
            if kind != MOSQUITTO:
                yield configuration(settings.mosquitto_devices)
            elif written := managed.written_for(settings):
                yield growth(written)


class CapacityMonitor:
    """Checks every five minutes, and warns once a day, and at once when a limit is passed that was only near."""

    def __init__(self, store: Store, broker_id: str, capacity: Capacity) -> None:
        self._store = store
        self._broker_id = broker_id
        self._capacity = capacity
        self._said: str | None = None
        self._looks_until_said = 0

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.error("fleet.not_counted", reason=error.message)  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(LOOKED_AT_EVERY_SECONDS)

    async def look(self) -> None:
        """Count, and warn unless the same warning was given within the last day."""
        number = await self._store.read(lambda view: self._capacity.counted(view, self._broker_id), Purpose.HEALTH)
        warning = self._capacity.warning(number)
        if warning is None:
            self._said = None
            return
        if warning.event != self._said or self._looks_until_said == 0:
            message = f"{warning.message} {self._capacity.remedy}"
            log.warning(warning.event, number=number, most=self._capacity.most, message=message)
            self._said, self._looks_until_said = warning.event, SAID_EVERY
        self._looks_until_said -= 1
