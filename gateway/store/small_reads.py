"""Small reads where each message to the server is a round trip: those that wait for a thread are sent together.

Fifty callers whose keys are looked up at once would otherwise cost fifty messages, and twice as many changes of thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gateway.store.engine import Ahead
from gateway.store.errors import DATABASE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.engine import DatabaseConnection
    from gateway.store.transaction import View

T = TypeVar("T")

TOGETHER: Final = 64
"""Reads of one message, at most."""


class _Waiting(NamedTuple):
    read: Callable[[View], Any]
    future: asyncio.Future[Any]


class Outcome(NamedTuple):
    """What a read has found, or the error that it raised."""

    found: Any
    error: Exception | None = None


class SmallReads:
    """The small reads of one purpose. ``threads`` of them run at once, or groups of those that waited meanwhile.

    ``start`` runs something on a thread, and ``read_all`` does the reads of one group there.
    """

    def __init__(
        self,
        threads: int,
        start: Callable[[Callable[[], None]], object],
        read_all: Callable[[Sequence[Callable[[View], Any]]], list[Outcome]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = start
        self._read_all = read_all
        self._lock = threading.Lock()
        self._free = threads
        self._waiting: deque[_Waiting] = deque()

    async def run(self, read: Callable[[View], T]) -> T:
        """Return what this finds. A group makes equal reads once."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._waiting.append(_Waiting(read, future))
            begins = self._free > 0
            self._free -= begins
        if begins:
            self._start(self._work)
        return await future

    def _work(self) -> None:
        while group := self._take():
            reads = list(dict.fromkeys(each.read for each in group))
            outcomes = dict(zip(reads, self._read_all(reads), strict=True))
            self._loop.call_soon_threadsafe(partial(_settle, group, outcomes))

    def _take(self) -> list[_Waiting]:
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            self._free += not group
        return group


def send_ahead(connection: DatabaseConnection, reads: Sequence[Callable[[View], object]]) -> None:
    """Have the first statement of each read executed, together. If that fails, each read asks for itself."""
    if len(reads) > 1:
        try:
            connection.read_ahead(Ahead(reads))
            connection.flush()
        except DATABASE_ERRORS:
            connection.refresh()


def _settle(group: list[_Waiting], outcomes: dict[Callable[[View], Any], Outcome]) -> None:
    for read, future in group:
        found, error = outcomes[read]
        if future.done():  # its caller went away
            continue
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
