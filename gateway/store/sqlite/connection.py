"""Connections to the SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import StoreError
from gateway.store.dialect import SQLITE
from gateway.store.errors import remedy
from gateway.store.row_statement import SEVERAL
from gateway.store.schema import SET, from_a_newer_gateway, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gateway.store.engine import Ahead
    from gateway.store.readers import Deadline
    from gateway.store.row_statement import RowStatement
    from gateway.store.transaction import View

DATABASE_NAME: Final = "gateway.db"
BUSY_TIMEOUT_MS: Final = 5_000
WRITER_CACHE_KIB: Final = 32_768
"""Keep the working set of a large fleet cached. SQLite's default of 2 MiB is too small."""
_STEPS_BETWEEN_LOOKS: Final = 10_000
"""Steps of SQLite's machine between two checks of a deadline: every few milliseconds."""


class SqliteConnection(sqlite3.Connection):
    """A connection with what the store needs of either engine (:class:`gateway.store.engine.Connection`)."""

    dialect = SQLITE
    _schema_known_at: int | None = None

    def run_rows(self, statement: RowStatement, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement about rows of one table; return how many it changed."""
        changed, done, several = 0, 0, statement.of_several
        if several is not None:
            for done in range(SEVERAL, len(rows) + 1, SEVERAL):
                changed += self.execute(several, [*chain.from_iterable(rows[done - SEVERAL : done])]).rowcount
        return changed + self.executemany(statement.of_one, rows[done:]).rowcount if done < len(rows) else changed

    post = sqlite3.Connection.execute

    def flush(self) -> None:
        """Do nothing: each statement was executed."""

    def read_ahead(self, *ahead: Ahead) -> None:
        """Do nothing: a read is a call in this process."""

    def begin(self, *, shared: bool = False) -> None:  # noqa: ARG002 - one process writes
        """Begin a transaction that writes."""
        self.execute("BEGIN IMMEDIATE")

    def begin_checked(
        self,
        *,
        shared: bool = False,
        ahead: Sequence[Ahead] = (),  # noqa: ARG002 - as in read_ahead
    ) -> str | None:
        """Begin a transaction that writes; return what :meth:`newer_schema` does."""
        self.begin(shared=shared)
        return self.newer_schema()

    def writes_about(self, device_id: str | None) -> None:
        """Do nothing, as in :meth:`read_ahead`."""

    def commit_with(self, then: Sequence[Callable[[View], object]] = ()) -> None:  # noqa: ARG002 - as in read_ahead
        """Commit."""
        self.execute("COMMIT")

    def begin_read(self, deadline: Deadline | None = None) -> None:
        """Begin a transaction whose statements see one state. SQLite gives the work up when the deadline has passed."""
        if deadline is not None:
            self.set_progress_handler(deadline.passed, _STEPS_BETWEEN_LOOKS)
        self.execute("BEGIN")

    def take_time(self) -> None:
        """Do nothing: a statement may take any time."""

    def end_read(self) -> None:
        """End it."""
        self.set_progress_handler(None, 0)
        if self.in_transaction:
            self.execute("ROLLBACK")

    def commits_of_others(self) -> int:
        """Return a counter that changes with each commit by another connection."""
        count: int = self.execute("PRAGMA data_version").fetchone()[0]
        return count

    def stamp(self) -> tuple[int, int]:
        """Return a value that changes with each write by this connection, and each commit by another."""
        return self.total_changes, self.commits_of_others()

    def refresh(self) -> bool:
        """Return False: a file is not lost."""
        return False

    def last_numbers(self) -> dict[str, int]:
        """Return counters that change with each commit by any process: ``outbox``, ``events`` and ``schema``."""
        rows = self.execute("SELECT name, seq FROM sqlite_sequence WHERE name IN ('outbox', 'events')")
        return {"schema": self.execute("PRAGMA schema_version").fetchone()[0], **{row[0]: row[1] for row in rows}}

    def newer_schema(self) -> str | None:
        """Return the step that this program does not know, if one was applied by now."""
        count = self.commits_of_others()
        if count == self._schema_known_at:  # no other connection has committed anything
            return None
        found = from_a_newer_gateway(self)
        if found is None:
            self._schema_known_at = count
        return found

    def known_steps(self) -> list[str]:
        """Return the names of the schema steps that this program knows, in order."""
        return steps()

    def applied_steps(self) -> set[str]:
        """Return the names of the schema steps that were applied; none in an empty file."""
        if not self.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
            return set()
        rows = self.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (SET,))
        return {row[0] for row in rows}


def connect(path: Path, *, read_only: bool = False) -> SqliteConnection:
    """Open the database file, durable to the last commit: WAL and ``synchronous=FULL``.

    Raises:
        StoreError: the file cannot be opened or is not a database.
    """
    try:
        return _connect(path, read_only=read_only)
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be opened ({error}). {remedy(error, again=False)}") from error


def _connect(path: Path, *, read_only: bool) -> SqliteConnection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=SqliteConnection,
    )
    connection.row_factory = sqlite3.Row
    try:
        _prepare(connection, read_only=read_only)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")  # or what a savepoint may undo goes to a file from 64 KB on
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")


def create_private(path: Path) -> None:
    """Make the file, readable by its owner alone, unless it exists.

    An existing file is not touched. A process that closes any descriptor of a file gives up all its locks on it, also
    those of its SQLite connections (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
