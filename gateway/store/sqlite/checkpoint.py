"""Checkpoints: committed pages move from the write-ahead log into the database, beside the writer's commits.

SQLite would do so in the very commit that makes the log a thousand pages long: one of fifty resets would wait until
those pages are written and synced. Here a separate thread does it, while the writer goes on. The log starts over once
all of it is in the database. Under a load without a pause that may not happen. Then the writer does it when the log has
:data:`MOST_PAGES`, which bounds the log.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

MOST_PAGES: Final = 10_000
"""40 MB."""
KEPT_BYTES: Final = 16_777_216
"""When the log starts over it is cut to this size. It grows beyond it while a backup reads the registry."""

ROWS: Final = 500
"""After so many changed rows the log has about a thousand pages, SQLite's own threshold."""

PAUSE_SECONDS: Final = 0.25
"""Pause between two. Under a stream of heartbeats the same pages are written again and again; one copy is enough."""


class Checkpointer:
    """Works on its own connection, which ``connect`` opens in the thread and which is closed there."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._seen = 0
        self._thread = threading.Thread(target=self._run, name="store-checkpoint", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Blocks until it has ended."""
        self._stopping.set()
        self._due.set()
        self._thread.join()

    def committed(self, changed: int) -> None:
        """Note a commit. ``changed``: the rows that the writer has changed since it was opened.

        SQLite counts in 32 bits: after two thousand million rows it goes on below zero.
        """
        if abs(changed - self._seen) >= ROWS:
            self._seen = changed
            self._due.set()

    def _run(self) -> None:
        connection = self._connect()
        try:
            while self._wait():
                self._checkpoint(connection)
                self._stopping.wait(PAUSE_SECONDS)
        finally:
            connection.close()

    def _wait(self) -> bool:
        self._due.wait()
        self._due.clear()
        return not self._stopping.is_set()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:  # what is committed is safe in the log, and there is a next time
            log.warning("store.not_checkpointed", reason=str(error))
