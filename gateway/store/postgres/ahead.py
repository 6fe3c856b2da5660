"""Reads that are sent ahead: what a write is going to ask for, in one message, since each message is a round trip.

A read that was sent ahead is known by its statement and its values. The next read of the same gets that answer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from gateway.store.dialect import POSTGRESQL
from gateway.store.transaction import View

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.store.engine import Cursor, DatabaseConnection

_CHANGES_NOTHING: Final = ("SELECT", "SAVEPOINT", "RELEASE")
OF_ONE_DEVICE: Final = ("devices", "commands", "tokens", "end_user_salts")
"""Tables where a write about one device changes no row that is read about another one.

Two devices may be of one person. A salt that was made for one of them is found in ``Tx.new_salts`` for the other.
"""
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
    except Exception:  # noqa: BLE001 - it fails in the same way when it is run, and its caller gets that
        return None
    return None


class _Waiting(NamedTuple):
    posted: Cursor
    device_id: str | None


class Answers:
    """Answers of reads that were sent ahead, until they are asked for."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[tuple[Any, ...], _Waiting]] = {}
        """By statement, then by values."""
        self.written_about: str | None = None
        """The device that the write under way is about; None: it may be about several."""

    def add(self, statement: Statement, posted: Cursor, device_id: str | None) -> None:
        """Add one. With a device it is about that alone, as far as :data:`OF_ONE_DEVICE` goes."""
        self._waiting.setdefault(statement.sql, {})[statement.values] = _Waiting(posted, device_id)

    def take(self, sql: str, values: Sequence[Any]) -> Cursor | None:
        """Return the answer of this statement, or None if it has to be executed."""
        if not self._waiting:
            return None
        found = self._waiting.get(sql, {}).pop(tuple(values), None)
        if found is None:
            self.changed_by(sql)
            return None
        return found.posted

    def changed_by(self, sql: str) -> None:
        """Forget the answers that this statement may change: those of reads that name the table it writes."""
        if not self._waiting or sql.startswith(_CHANGES_NOTHING):
            return
        table = _table_written(sql)
        if table is None:
            self.clear()
            return
        for read in [each for each in self._waiting if _names(each, table)]:
            if table in OF_ONE_DEVICE and self.written_about is not None:
                about = (None, self.written_about)
                left = {key: each for key, each in self._waiting[read].items() if each.device_id not in about}
                self._waiting[read] = left
            else:
                del self._waiting[read]

    def clear(self) -> None:
        """Forget all: they were of this transaction."""
        self._waiting.clear()
        self.written_about = None


@lru_cache(maxsize=1_000)
def _table_written(sql: str) -> str | None:
    found = _WRITTEN.match(sql)
    return None if found is None else found[1]


@lru_cache(maxsize=1_000)
def _names(sql: str, table: str) -> bool:
    return re.search(rf"\b{table}\b", sql) is not None
