"""What a writer remembers of rows that it has just written, for as long as nothing else has written any.

A heartbeat is judged by what the registry knows of its device, and most of that the heartbeat before has just written.
Reading it again costs as much as storing it; so it stays in memory between transactions. Two counters of SQLite tell
whether anything else was written meanwhile, by this connection (``total_changes``) or by another process
(``PRAGMA data_version``): then all of it is forgotten. Whoever rolls back calls :meth:`DeviceCache.forget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from gateway.store.health_sql import DeviceState

MOST: Final = 16_384
"""Devices that are remembered: some 12 MB."""


class DeviceCache:
    """The devices that were heard last, by id; for use inside a transaction, between :meth:`open` and :meth:`close`."""

    def __init__(self) -> None:
        self.senders: dict[str, DeviceState] = {}
        self._stamp: tuple[int, int] | None = None

    def open(self, connection: sqlite3.Connection) -> None:
        """Inside a transaction, before looking: forget all if anything else was written since :meth:`close`.

        An error before the next :meth:`close` makes it forget, so that nothing half done stays behind.
        """
        if self._stamp != _stamp(connection) or len(self.senders) > MOST:
            self.senders.clear()
        self._stamp = None

    def close(self, connection: sqlite3.Connection) -> None:
        """What it holds is what is written by now."""
        self._stamp = _stamp(connection)

    def learn(self, senders: Iterable[DeviceState]) -> None:
        """Remember these, just read."""
        self.senders.update((sender.id, sender) for sender in senders)

    def forget(self) -> None:
        """What it holds was changed by somebody else, or undone."""
        self._stamp = None
        self.senders.clear()


def _stamp(connection: sqlite3.Connection) -> tuple[int, int]:
    return connection.total_changes, connection.execute("PRAGMA data_version").fetchone()[0]
