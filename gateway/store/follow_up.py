"""Reads that follow a commit: the writer's thread makes them, on the same connection.

On SQLite it reads right after the commit. On PostgreSQL it reads at the end of the transaction, in the message of
``COMMIT``, and tells what was found once that is done.

A worker that waits for rows asks for such a read beforehand. It then has what the commit has made due at the moment
when it hears of it. To read it then would take two changes of thread while the loop writes answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from gateway.store.errors import DATABASE_ERRORS
from gateway.store.transaction import Tx, View

T = TypeVar("T")


class FollowUps:
    """The reads that wait for a commit. The loop asks, and the writer's thread reads."""

    def __init__(self) -> None:
        self._waiting: tuple[tuple[asyncio.Future[Any], frozenset[str], Callable[..., Any]], ...] = ()

    @property
    def is_asked(self) -> bool:
        """Return whether any read waits for a commit."""
        return any(not future.done() for future, _, _ in self._waiting)

    def ask(self, read: Callable[..., T], kinds: Collection[str]) -> asyncio.Future[T]:
        """Return a future of what this finds after the next commit that marks rows of these kinds in the outbox.

        It gets a view, and ``now``: the instant of that write (milliseconds since the epoch). The future is done
        before the other calls for that commit. It stays open if the database fails; cancel it after use.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        still_open = (each for each in self._waiting if not each[0].done())
        self._waiting = (*still_open, (future, frozenset(kinds), read))
        return future

    def due(self, tx: Tx) -> list[Callable[[View], Any]]:
        """Return the reads that wait for this commit."""
        return [read for _, read in self._due(tx)]

    def read(self, tx: Tx) -> list[Callable[[], None]]:
        """Read what waits for this commit; return the calls that tell it in the loop."""
        calls: list[Callable[[], None]] = []
        for future, read in self._due(tx):
            with suppress(*DATABASE_ERRORS):  # the commit stands, and the worker reads by itself
                calls.append(_answer(future, read, tx))
        return calls

    def _due(self, tx: Tx) -> list[tuple[asyncio.Future[Any], Callable[[View], Any]]]:
        return [
            (future, partial(read, now=tx.now))
            for future, kinds, read in self._waiting
            if not future.done() and kinds & tx.outbox_kinds
        ]


def _answer(future: asyncio.Future[T], read: Callable[[View], T], tx: Tx) -> Callable[[], None]:
    try:
        found = read(View(tx.connection))
    except DATABASE_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001 - it is the worker's, and the writer's thread lives on
        return partial(_settle, future, future.set_exception, error)
    return partial(_settle, future, future.set_result, found)


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], outcome: object) -> None:
    if not future.done():
        settle(outcome)
