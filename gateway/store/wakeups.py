"""Who wakes whom: commits wake those who bring the outside in step, and they wake whoever waits for that.

No state lives here. The outbox is a table; these are wakeups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from gateway.store import Store, StoreListener, outbox_sql

EVERY: Final = frozenset((outbox_sql.COMMAND, outbox_sql.TOPIC, outbox_sql.CREDENTIAL))


class Wakeups(StoreListener):
    """Rung by the store after commits that marked the outbox or made news, and by workers that cleared some of it."""

    def __init__(self) -> None:
        topics = asyncio.Event()
        self._work = {outbox_sql.COMMAND: topics, outbox_sql.TOPIC: topics, outbox_sql.CREDENTIAL: asyncio.Event()}
        self._progress = asyncio.Event()
        self._news = asyncio.Event()
        self.comparison = asyncio.Event()
        """Set when somebody asks for a comparison with the broker; whoever makes it clears it."""
        self.access = asyncio.Event()
        """The same, of who may connect there."""
        self.backlog = asyncio.Event()
        """Set when another process asks that what the broker keeps is taken in first."""

    @property
    def news(self) -> asyncio.Event:
        """Set by the next commit that writes events or changes who gets them: take it, look, then wait for it."""
        return self._news

    def notify_events(self) -> None:
        """There are new events, or somebody new to get them."""
        self._news.set()
        self._news = asyncio.Event()

    def compare(self) -> None:
        """Somebody asks that the broker be compared with the registry: what it retains, and who may connect."""
        self.comparison.set()
        self.access_changed()

    def access_changed(self) -> None:
        """Who may connect there is to be compared."""
        self.access.set()
        self._work[outbox_sql.CREDENTIAL].set()

    def notify_outbox(self, kinds: Collection[str]) -> None:
        """There is work of these kinds in the outbox; all retained topics are worked off by one."""
        for kind in kinds:
            self._work[kind].set()

    async def wait_for(self, kind: str) -> None:
        """Wait until there may be work of this kind."""
        await self._work[kind].wait()
        self._work[kind].clear()

    def notify_progress(self) -> None:
        """Some of it is done."""
        self._progress.set()
        self._progress = asyncio.Event()

    async def synced(self, store: Store, device_pk: int, seconds: float) -> bool:
        """Wait until nothing of this device is out of step; ``False`` when that took longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    progress = self._progress
                    if not store.read_inline(lambda view: outbox_sql.waits(view, device_pk)):
                        return True
                    await progress.wait()
        except TimeoutError:
            return False
