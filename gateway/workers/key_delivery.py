"""Delivery of a signing key to bound devices, at the pace of a bulk reset (:mod:`gateway.domain.grant_keys`)."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from gateway.domain import grant_keys
from gateway.store import Store
from gateway.workers.rounds import repeat

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 1.0


class KeyDelivery:
    """Asks the next devices once a second. How far it is lies in the registry, so a restart continues there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Ask until cancelled; without a delivery only look whether there is one.

        Raises:
            LeaseLostError: another gateway does this by now.
        """
        await repeat("key_delivery", self._store, self.step, INTERVAL_SECONDS)

    async def step(self) -> int:
        """Ask the devices of one second; return how many."""
        if await self._store.read(grant_keys.running) is None:
            return 0
        limit = max(1, round(self._store.context.rules.bulk_reset_per_second * INTERVAL_SECONDS))
        asked = await self._store.write(partial(grant_keys.ask_next, limit=limit), urgent=False)
        log.info("key_delivery.asked", devices=asked)
        return asked
