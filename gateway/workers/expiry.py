"""Expiry by time alone, of commands and of old history, and the rest of a change that touches a whole project.

Silence of devices: :mod:`gateway.workers.presence`.
"""

from __future__ import annotations

from typing import Final

import structlog

from gateway.core.clock import to_rfc3339
from gateway.domain import administration, commands, heartbeats, sessions, webhooks
from gateway.store import Store, Tx, View, heartbeat_partition_sql, idempotency_sql, key_sql, project_mark_sql
from gateway.store.command_sql import CLOCKS_DIFFER_MS
from gateway.workers.rounds import repeat

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 1.0
PRUNE_EVERY: Final = 600


class ExpiryWorker:
    """Checks once a second, and writes only when there is something to write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rounds = 0

    async def run(self) -> None:
        """Check until cancelled.

        Raises:
            LeaseLostError: another gateway does this by now.
        """
        await repeat("expiry", self._store, self._look, INTERVAL_SECONDS)

    async def _look(self) -> None:
        is_time_to_prune = self._rounds % PRUNE_EVERY == 0
        self._rounds += 1
        await self.sweep()
        await self.mark_projects()
        if is_time_to_prune:
            await self.prune()
            await self.warn_of_keys()

    async def sweep(self) -> None:
        """Expire commands until nothing is due."""
        if self._store.trouble is not None:
            await self._store.write(_touch, urgent=False)  # or only the next request would notice its end
        while await self._store.read(self._due):
            expired = await self._store.write(commands.expire, urgent=False)
            log.info("expiry.done", commands_expired=expired)

    async def mark_projects(self) -> None:
        """Mark all devices of projects that have got their first integrator, or lost their last, a piece at a time."""
        while await self._store.read(project_mark_sql.is_under_way):
            await self._store.write(project_mark_sql.go_on, urgent=False)

    async def prune(self) -> None:
        """Delete what is older than the settings keep, in short transactions."""
        while dropped := await self._store.write(_prune, urgent=False):
            log.info("expiry.pruned", rows=dropped)
        if dropped := await self._store.write(heartbeat_partition_sql.maintain, urgent=False):
            log.info("expiry.partitions_dropped", partitions=dropped)

    async def warn_of_keys(self) -> None:
        """Write events for API keys that expire soon."""
        now = self._store.context.clock()
        if await self._store.read(lambda view: administration.keys_to_warn_of(view, now)):
            for row in await self._store.write(administration.warn_of_expiring_keys, urgent=False):
                log.warning("key.expiring", key_id=row.id, name=row.name, expires_at=to_rfc3339(row.expires_at))

    def _due(self, view: View) -> bool:
        now = self._store.context.clock()
        found = view.one(
            """SELECT 1 WHERE EXISTS (SELECT 1 FROM commands WHERE status IN ('pending', 'delivered')
                    AND expires_at IS NOT NULL AND expires_at <= ?)
                OR EXISTS (SELECT 1 FROM commands WHERE status IN ('pending', 'delivered')
                    AND expires_at IS NOT NULL AND expires_at - ttl_ms > ?)""",
            *(now, now + CLOCKS_DIFFER_MS),
        )
        return found is not None


def _touch(tx: Tx) -> None:
    key_sql.set_meta(tx, "touched_at", str(tx.now))


def _prune(tx: Tx) -> int:
    return heartbeats.prune(tx) + idempotency_sql.prune(tx) + webhooks.prune(tx) + sessions.prune(tx)
