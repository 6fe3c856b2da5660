"""Worker of the fleet: notes which brokers are away, leaves out those that are for long, and takes homes away."""

from __future__ import annotations

from typing import Final

import structlog

from gateway.domain import brokers, cells
from gateway.store import Store, View, home_sql
from gateway.workers.rounds import repeat

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 5.0


class AwayBrokers:
    """Checks every few seconds, and writes only when there is something to write."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Check until cancelled.

        Raises:
            LeaseLostError: another gateway does this by now.
        """
        await repeat("brokers", self._store, self.look, INTERVAL_SECONDS)

    async def look(self) -> None:
        """Note what has changed, and drop the rows of brokers that are left out."""
        if await self._store.read(self._needs_care):
            for broker_id in await self._store.write(brokers.care, urgent=False):
                log.warning("broker.left_out", broker_id=broker_id, message="It is compared in full when it is back.")
        if await self._store.read(brokers.has_rows_to_drop):
            while await self._store.write(brokers.drop_rows, urgent=False):
                pass
        if await self._store.read(self._has_homes_to_release):
            await self._release()

    async def _release(self) -> None:
        """Have every broker serve each device again: the setting ``cells`` is ``any`` now."""
        devices = 0
        while released := await self._store.write(cells.release, urgent=False):
            devices += released
        log.info("cells.homes_released", devices=devices)

    def _has_homes_to_release(self, view: View) -> bool:
        return not self._store.context.rules.assigns_homes and bool(home_sql.some(view, 1))

    def _needs_care(self, view: View) -> bool:
        return brokers.needs_care(view, self._store.context.clock())
