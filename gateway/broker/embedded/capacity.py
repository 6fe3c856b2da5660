"""Capacity warning for a fleet that outgrows its broker; the size for the embedded one (docs/embedded-broker.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.errors import StoreError
from gateway.store import Purpose, Store, gauge_sql

log = structlog.get_logger()

MOST_BOUND: Final = 500
"""Bound devices that the embedded broker is good for: half of the connections that it accepts."""
LOOKED_AT_EVERY_SECONDS: Final = 300.0
SAID_EVERY: Final = 288
"""Number of checks until the warning is repeated: a day."""
REMEDY: Final = (
    "Move to Mosquitto while there is time: --broker mosquitto where it is installed, or 'gateway broker init' for one "
    "beside the gateway ('gateway docs mosquitto'). Devices notice nothing but a reconnect."
)


def outgrown(bound: int, most: int = MOST_BOUND) -> str | None:
    """Return the warning for a fleet with so many bound devices, or None."""
    if bound <= most:
        return None
    return (
        f"{bound} devices are bound, and the embedded broker is made for {most}: it keeps nothing over a restart, and "
        "takes 1,000 connections at most."
    )


class CapacityMonitor:
    """Checks every five minutes, and warns once a day: with what ``outgrown`` returns, and the remedy.

    It counts the devices that the broker of ``broker_id`` admits.
    """

    def __init__(
        self,
        store: Store,
        broker_id: str,
        most: int = MOST_BOUND,
        outgrown: Callable[[int, int], str | None] = outgrown,
        remedy: str = REMEDY,
    ) -> None:
        self._store = store
        self._broker_id = broker_id
        self._most = most
        self._outgrown = outgrown
        self._remedy = remedy
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
        message = self._outgrown(bound, self._most)
        if message is None:
            self._looks_until_said = 0
            return
        if self._looks_until_said == 0:
            log.warning("broker.capacity_exceeded", bound=bound, message=f"{message} {self._remedy}")
            self._looks_until_said = SAID_EVERY
        self._looks_until_said -= 1
