"""Size of a fleet up to which its broker is good for it, and the warning for one that is larger.

The documentation names both sizes (docs/embedded-broker.md, docs/scaling.md).
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import structlog

from gateway.errors import StoreError
from gateway.store import Purpose, Store, gauge_sql

log = structlog.get_logger()

LOOKED_AT_EVERY_SECONDS: Final = 300.0
SAID_EVERY: Final = 288
"""Number of checks until the warning is repeated: a day."""


class Capacity(NamedTuple):
    """The number of bound devices that a broker is good for, what limits it and why, and what to do then."""

    most: int
    limited_by: str
    why: str
    remedy: str

    def exceeded(self, bound: int) -> str | None:
        """Return the warning for a fleet with so many bound devices, or None."""
        if bound <= self.most:
            return None
        return f"{bound} devices are bound, and {self.limited_by} is good for {self.most}: {self.why}"


EMBEDDED_BROKER: Final = Capacity(
    500,  # half of the connections that it accepts
    "the embedded broker",
    "it keeps nothing over a restart, and takes 1,000 connections at most.",
    "Move to Mosquitto while there is time: --broker mosquitto where it is installed, or 'gateway broker init' for one "
    "beside the gateway ('gateway docs mosquitto'). Devices notice nothing but a reconnect.",
)
PASSWORD_FILE: Final = Capacity(
    # With 100,000 users a revoked session ended after 0.3 s, with a million after 9 s. It must end within a second
    # (contract, section 1).
    100_000,
    "Mosquitto's password file",
    "Mosquitto reads all of it at each change of a token, and serves no client meanwhile. So a revoked session may "
    "live for longer than a second.",
    "Use a broker that asks the gateway instead of a password file ('gateway docs other-brokers'), or several brokers "
    "with cells = home ('gateway docs scaling').",
)


class CapacityMonitor:
    """Checks every five minutes, and warns once a day. It counts the devices that one broker admits."""

    def __init__(self, store: Store, broker_id: str, capacity: Capacity) -> None:
        self._store = store
        self._broker_id = broker_id
        self._capacity = capacity
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
        """Count, and warn unless a warning was given within the last day."""
        bound = await self._store.read(lambda view: gauge_sql.bound_at(view, self._broker_id), Purpose.HEALTH)
        message = self._capacity.exceeded(bound)
        if message is None:
            self._looks_until_said = 0
            return
        if self._looks_until_said == 0:
            log.warning("broker.capacity_exceeded", bound=bound, message=f"{message} {self._capacity.remedy}")
            self._looks_until_said = SAID_EVERY
        self._looks_until_said -= 1
