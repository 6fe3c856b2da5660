"""Reads that are sent ahead: what a write is going to ask for, in one message, since each message is a round trip.

A read that was sent ahead is known by its statement and its values. The next read of the same gets that answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from gateway.store.dialect import POSTGRESQL
from gateway.store.transaction import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.engine import Cursor, DatabaseConnection

_CHANGES_NOTHING: Final = ("SELECT", "SAVEPOINT", "RELEASE")
_WRITTEN: Final = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")


class Statement(NamedTuple):
    """A statement with its values."""

    sql: str
    values: tuple[Any, ...]


class _NotedError(Exception):
    def __init__(self, statement: Statement) -> None:
        super().__init__(statement.sql)
        self.statement = statement


class _Notes:
    """In place of a connection: it tells what a read would execute."""

    dialect = POSTGRESQL

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> NoReturn:
        raise _NotedError(Statement(sql, tuple(values)))


_NOTING: Final = View(cast("DatabaseConnection", _Notes()))


def statement_of(read: Callable[[View], object]) -> Statement | None:
    """Return the first statement that this read executes, or None if it executes none."""
    try:
        read(_NOTING)
    except _NotedError as noted:
        return noted.statement
    return None


class Answers:
    """Answers of reads that were sent ahead, until they are asked for."""

    def __init__(self) -> None:
        self._waiting: dict[Statement, Cursor] = {}

    def add(self, statement: Statement, posted: Cursor) -> None:
        """Add one."""
        self._waiting[statement] = posted

    def take(self, sql: str, values: Sequence[Any]) -> Cursor | None:
        """Return the answer of this statement, or None if it has to be executed."""
        if not self._waiting:
            return None
        found = self._waiting.pop(Statement(sql, tuple(values)), None)
        if found is None:
            self.changed_by(sql)
        return found

    def changed_by(self, sql: str) -> None:
        """Forget the answers that this statement may change: those of reads that name the table it writes."""
        if not self._waiting or sql.startswith(_CHANGES_NOTHING):
            return
        table = _WRITTEN.match(sql)
        if table is None:
            self.clear()
            return
        named = re.compile(rf"\b{table[1]}\b")
        for statement in [each for each in self._waiting if named.search(each.sql)]:
            del self._waiting[statement]

    def clear(self) -> None:
        """Forget all: they were of this transaction."""
        self._waiting.clear()
