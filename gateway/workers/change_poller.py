"""Poller for commits of other processes: the command line writes to the same registry (``gateway devices …``).

The store wakes the workers after its own commits. Commits of others show in the highest numbers that outbox and events
ever gave. Requests for a comparison with the broker (``gateway doctor --fix``) and changes of accounts show in facts of
the registry. The poll is a few look-ups, a few times a second.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from gateway.domain import backlog
from gateway.errors import StoreError
from gateway.store import Store, Tx, View, account_sql, key_sql
from gateway.store.wakeups import EVERY, Wakeups

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 0.25
COMPARISON: Final = "comparisons_asked"


class ChangePoller:
    """Wakes the workers of the outbox and of events when either has grown. Own commits wake them once more."""

    def __init__(self, store: Store, wakeups: Wakeups) -> None:
        self._store = store
        self._wakeups = wakeups
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.warning("change_poller.not_read", reason=error.message)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def look(self) -> None:
        """Wake the workers for what has changed since the last poll."""
        before, self._seen = self._seen, await self._store.read(_numbers)
        if self._seen["schema"] != before.get("schema"):
            await self._store.look_at_schema()
        if self._seen.get("outbox") != before.get("outbox"):
            self._wakeups.notify_outbox(EVERY)
        self._wakeups.notify_progress()  # another gateway may have worked rows off
        if self._seen.get("events") != before.get("events"):
            self._wakeups.notify_events()
        if before and self._seen.get(COMPARISON) != before.get(COMPARISON):
            self._wakeups.compare()
        if before and self._seen.get(account_sql.CHANGES) != before.get(account_sql.CHANGES):
            self._wakeups.access_changed()
        if before and self._seen.get(backlog.ASKED) != before.get(backlog.ASKED):
            self._wakeups.backlog.set()


def _numbers(view: View) -> dict[str, int]:
    return {
        COMPARISON: int(key_sql.meta(view, COMPARISON) or 0),
        account_sql.CHANGES: account_sql.changes(view),
        backlog.ASKED: backlog.asked(view),
        **view.connection.last_numbers(),
    }


def ask_for_comparison(tx: Tx) -> None:
    """Ask the gateway that runs on this registry to compare it with the broker now."""
    key_sql.set_meta(tx, COMPARISON, str(int(key_sql.meta(tx, COMPARISON) or 0) + 1))
