"""Limit on reads that look at many rows, per credential: one runs at a time, a few wait, one more is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from gateway.http.errors import TooManyScansError
from gateway.store import Deadline
from gateway.store.readers import DeadlineError

MAX_OPEN: Final = 8
SCAN_SECONDS: Final = 5.0


@dataclass
class _Queue:
    """The scans of one credential."""

    running: asyncio.Lock = field(default_factory=asyncio.Lock)
    open: int = 0


class ScanLimiter:
    """At most ``max_open`` scans per credential, waiting ones included; each is given up after ``seconds``.

    One credential uses one of the two threads for scans, so another's search does not wait behind its queue.
    """

    def __init__(self, max_open: int = MAX_OPEN, seconds: float = SCAN_SECONDS) -> None:
        self.max_open = max_open
        self.seconds = seconds
        self._queues: dict[str, _Queue] = {}

    def open_of(self, credential_id: str) -> int:
        """Return how many it has open."""
        queue = self._queues.get(credential_id)
        return 0 if queue is None else queue.open

    @asynccontextmanager
    async def turn(self, credential_id: str) -> AsyncIterator[Deadline]:
        """Wait for the credential's turn; yield the deadline for the block.

        Raises:
            TooManyScansError: it has ``max_open`` open.
            DeadlineError: its turn did not come in time.
        """
        queue = self._queues.setdefault(credential_id, _Queue())
        if queue.open >= self.max_open:
            raise TooManyScansError(self.max_open)
        deadline = Deadline(self.seconds)
        queue.open += 1
        try:
            await _acquire(queue.running, deadline)
            try:
                yield deadline
            finally:
                queue.running.release()
        finally:
            queue.open -= 1
            if not queue.open:
                self._queues.pop(credential_id, None)


async def _acquire(lock: asyncio.Lock, deadline: Deadline) -> None:
    try:
        async with asyncio.timeout(deadline.left):
            await lock.acquire()
    except TimeoutError as error:
        raise DeadlineError(deadline.seconds) from error
