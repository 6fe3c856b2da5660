"""One registry for several gateways. SQLite stands for the server.

Each gateway has its line to it, and transactions take turns, as they do at PostgreSQL under the lock of the registry.
The clock of the database is the virtual one, whatever the clock of a gateway says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gateway.store.dialect import SQLITE
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from gateway.store.engine import Cursor
    from gateway.store.row_statement import RowStatement

_DATABASE_CLOCK: Final = "database_clock"

CLUSTER_LEDGER = """
    CREATE TEMP TRIGGER l16 AFTER DELETE ON outbox BEGIN
        INSERT INTO ledger (what, id, old, new) VALUES ('handled', old.seq, old.kind, old.broker_pk); END;
    CREATE TEMP TRIGGER l17 AFTER UPDATE ON leases WHEN old.epoch <> new.epoch OR old.instance <> new.instance BEGIN
        INSERT INTO ledger (what, id, old, new) VALUES ('lease', new.name,
            json_object('instance', old.instance, 'epoch', old.epoch, 'until', old.until, 'taken_at', old.taken_at),
            json_object('instance', new.instance, 'epoch', new.epoch, 'until', new.until)); END;
    CREATE TEMP TRIGGER l18 AFTER UPDATE ON leases WHEN old.epoch = new.epoch AND old.instance = new.instance BEGIN
        INSERT INTO ledger (what, id, old, new) VALUES ('kept', new.name, json_quote(new.instance), new.until); END;
"""


def share(disk: Disk, clock: Callable[[], int]) -> None:
    """Make a disk the registry of several gateways: with a clock, in milliseconds since the epoch."""
    disk.create_function(_DATABASE_CLOCK, 0, clock)
    disk.executescript(CLUSTER_LEDGER)


class Line:
    """A gateway's line to the shared registry. When it is cut, the answer to the last commit may be lost."""

    dialect = replace(SQLITE, _now=f"{_DATABASE_CLOCK}()")

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self._own_commits = 0
        self.is_cut = False
        self.loses_answer = False

    @property
    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self.disk.in_transaction

    def execute(self, sql: str, values: Any = (), /) -> Cursor:
        """Execute a statement, if the registry can be reached."""
        if self.is_cut and sql != "ROLLBACK":
            raise sqlite3.OperationalError("the registry cannot be reached")
        cursor = self.disk.execute(sql, values)
        if sql == "COMMIT":
            self._own_commits += 1
            if self.loses_answer:
                self.loses_answer, self.is_cut = False, True
                raise sqlite3.OperationalError("the answer to the commit was lost")
        return cursor

    def executemany(self, sql: str, rows: Any, /) -> Cursor:
        """Execute a statement with each of these rows."""
        if self.is_cut:
            raise sqlite3.OperationalError("the registry cannot be reached")
        return self.disk.executemany(sql, rows)

    def post(self, sql: str, values: Any = (), /) -> Cursor:
        """Execute a statement, if the registry can be reached."""
        return self.execute(sql, values)

    def run_rows(self, statement: RowStatement, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement about rows, if the registry can be reached."""
        return self.executemany(statement.of_one, rows).rowcount if rows else 0

    def begin(self, *, shared: bool = False) -> None:  # noqa: ARG002 - no other is in a transaction meanwhile
        """Begin a transaction that writes."""
        self.execute("BEGIN IMMEDIATE")

    def begin_checked(self, *, shared: bool = False, ahead: object = ()) -> str | None:  # noqa: ARG002 - nor read
        """Begin a transaction that writes. No other version changes the schema here."""
        self.begin(shared=shared)
        return None

    def commits_of_others(self) -> int:
        """Return a counter that changes with each commit by another."""
        return self.disk.commits - self._own_commits

    def stamp(self) -> tuple[int, int]:
        """Return a value that changes with each write to the registry."""
        return self.disk.total_changes, self.disk.commits

    def __getattr__(self, name: str) -> Any:
        """What is the same for all."""
        return getattr(self.disk, name)
