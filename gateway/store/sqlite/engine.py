"""SQLite as the engine of a store: one file in the data directory, checkpoints beside the writer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.opening import open_sqlite, open_sqlite_to_serve, require_registry
from gateway.store.sqlite.checkpoint import KEPT_BYTES, MOST_PAGES, Checkpointer
from gateway.store.sqlite.connection import DATABASE_NAME, SqliteConnection, connect

if TYPE_CHECKING:
    from pathlib import Path


class SqliteEngine:
    """The registry in the file of this data directory."""

    is_local = True

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def open(self, *, to_serve: bool = False) -> SqliteConnection:
        """Open a connection that writes. An older registry is migrated ``to_serve``, after a copy.

        Raises:
            StoreError: the registry cannot be used, or has the schema of another version.
        """
        return (open_sqlite_to_serve if to_serve else open_sqlite)(self._data_dir)

    def open_existing(self) -> SqliteConnection:
        """Open a connection that writes to a registry that is there.

        Raises:
            NotFoundError: it does not exist.
            StoreError: as above.
        """
        require_registry(self._data_dir)
        return self.open()

    def open_writer(self) -> SqliteConnection:
        """Open the store's connection that writes, and start what the engine does beside it.

        Raises:
            StoreError: the registry cannot be used, or has the schema of another version.
        """
        self._connection = self.open()
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
        self._connection.execute(f"PRAGMA journal_size_limit = {KEPT_BYTES}")
        self._checkpointer = Checkpointer(lambda: connect(self._data_dir / DATABASE_NAME))
        self._checkpointer.start()
        return self._connection

    def open_reader(self) -> SqliteConnection:
        """Open a connection that only reads.

        Raises:
            StoreError: it cannot be opened.
        """
        return connect(self._data_dir / DATABASE_NAME, read_only=True)

    def open_renewer(self) -> None:
        """Return None: one process writes, so no renewal waits for another."""

    def committed(self) -> None:
        """Note a commit of the writer, in its thread."""
        self._checkpointer.committed(self._connection.total_changes)

    def stop(self) -> None:
        """Stop what :meth:`open_writer` started. Blocks until it has ended."""
        self._checkpointer.stop()
