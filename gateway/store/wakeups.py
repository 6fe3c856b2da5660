"""In-process wake-ups: commits wake the outbox workers; workers wake callers that wait for sync.

No state lives here. The outbox is a table; these are events of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Final

from gateway.store import Store, StoreListener, View, broker_sql, outbox_sql

EVERY: Final = frozenset((outbox_sql.COMMAND, outbox_sql.TOPIC, outbox_sql.CREDENTIAL))


class Wakeups(StoreListener):
    """Notified by the store after commits that marked the outbox or wrote events, and by workers that handled rows."""

    def __init__(self) -> None:
        topics = asyncio.Event()
        self._work = {outbox_sql.COMMAND: topics, outbox_sql.TOPIC: topics, outbox_sql.CREDENTIAL: asyncio.Event()}
        self._progress = asyncio.Event()
        self._news = asyncio.Event()
        self.comparison = asyncio.Event()
        """Set when a comparison with the broker is requested. The reconciler clears it."""
        self.access = asyncio.Event()
        """The same for the comparison of access."""
        self.backlog = asyncio.Event()
        """Set when another process requests that the broker's backlog is read first."""

    @property
    def news(self) -> asyncio.Event:
        """Return the event that the next commit with events sets: take it, read, then wait for it."""
        return self._news

    def notify_events(self) -> None:
        """Wake the readers of events: there are new ones, or new receivers."""
        self._news.set()
        self._news = asyncio.Event()

    def compare(self) -> None:
        """Request a comparison of the broker with the registry: retained messages and access."""
        self.comparison.set()
        self.access_changed()

    def access_changed(self) -> None:
        """Request a comparison of access."""
        self.access.set()
        self._work[outbox_sql.CREDENTIAL].set()

    def notify_outbox(self, kinds: Collection[str]) -> None:
        """Wake the workers of these kinds. One worker handles all retained topics."""
        for kind in sorted(kinds):  # in one order in each process, so that a simulated run can be repeated
            self._work[kind].set()

    async def wait_for(self, kind: str) -> None:
        """Wait until there may be rows of this kind."""
        await self._work[kind].wait()
        self._work[kind].clear()

    def notify_progress(self) -> None:
        """Note that some rows were handled."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def synced(self, store: Store, device_pk: int, seconds: float) -> bool:
        """Wait until nothing of this device is out of step, at each broker that has an owner.

        Return False when that takes longer than ``seconds``.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    progress = self._progress
                    if await store.read_small(partial(_in_step, device_pk=device_pk, instant=store.context.clock())):
                        return True
                    await progress.wait()
        except TimeoutError:
            return False


def _in_step(view: View, *, device_pk: int, instant: int) -> bool:
    awaited = broker_sql.awaited(view, instant)
    if not awaited or any(each.left_out_at is not None for each in awaited):  # its new owner has not begun yet
        return False
    return not outbox_sql.waits(view, device_pk, [each.pk for each in awaited])
