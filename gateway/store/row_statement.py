"""Statements about many rows of one table, executed as one where each statement is a round trip.

SQLite executes a prepared statement for each row. PostgreSQL gets one statement with an array for each column. It comes
as one message, so the server's limits of time apply to it from its first byte to its last. They do not apply within
COPY: a gateway that is paused there would hold the lock of the registry until it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTEGER: Final = "bigint"
NUMBER: Final = "numeric"
TEXT: Final = "text"

SEVERAL: Final = 10
"""Rows that SQLite inserts with one statement. Longer statements gain little."""


class RowStatement(Protocol):
    """A statement, and the columns of its values with their types, in order."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Return them."""

    @property
    def of_one(self) -> str:
        """Return the statement with a placeholder for each value of a row."""

    @property
    def of_several(self) -> str | None:
        """Return the statement for :data:`SEVERAL` rows, with a placeholder for each value. An update has none."""

    @property
    def of_all(self) -> str:
        """Return the statement with a placeholder for each column: an array as PostgreSQL writes it."""


@dataclass(frozen=True)
class Insertion:
    """Inserts rows.

    ``constants`` are columns with one SQL expression for all rows. ``conflict`` is the end of the statement: what
    happens to rows that are there.
    """

    table: str
    columns: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    conflict: str = ""

    @cached_property
    def of_one(self) -> str:
        """Return the statement for one row."""
        return self._of(1)

    @cached_property
    def of_several(self) -> str:
        """Return the statement for several rows. They cost a quarter less than one by one."""
        return self._of(SEVERAL)

    def _of(self, rows: int) -> str:
        row = f"({', '.join((*('?' for _ in self.columns), *self.constants.values()))})"
        return f"INSERT INTO {self._target} VALUES {', '.join([row] * rows)} {self.conflict}"  # noqa: S608 - our own columns

    @cached_property
    def of_all(self) -> str:
        """Return the statement for arrays."""
        constants = "".join(f", {value}" for value in self.constants.values())
        given = _given(self.columns)
        return f"INSERT INTO {self._target} SELECT given.*{constants} FROM {given} {self.conflict}"  # noqa: S608 - the same

    @property
    def _target(self) -> str:
        return f"{self.table} ({', '.join((*self.columns, *self.constants))})"


@dataclass(frozen=True)
class Update:
    """Sets columns of the rows with these keys. The key is the last value of a row.

    ``kept`` are columns that keep what they have where the new value is NULL.
    """

    table: str
    values: Mapping[str, str]
    key: str
    kept: Sequence[str] = ()
    of_several: None = None

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Return the columns with their types."""
        return {**self.values, self.key: INTEGER}

    @cached_property
    def of_one(self) -> str:
        """Return the statement for one row."""
        changes = (self._change(name, "?") for name in self.values)
        return f"UPDATE {self.table} SET {', '.join(changes)} WHERE {self.key} = ?"  # noqa: S608 - our own columns

    @cached_property
    def of_all(self) -> str:
        """Return the statement for arrays."""
        changes = (self._change(name, f"given.{name}") for name in self.values)
        return (
            f"UPDATE {self.table} SET {', '.join(changes)} FROM {_given(self.columns)} "  # noqa: S608 - the same
            f"WHERE {self.table}.{self.key} = given.{self.key}"
        )

    def _change(self, name: str, value: str) -> str:
        return f"{name} = coalesce({value}, {self.table}.{name})" if name in self.kept else f"{name} = {value}"


def arrays(statement: RowStatement, rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the columns of these rows as arrays."""
    columns = zip(*rows, strict=True)
    return [
        _texts(values) if kind == TEXT else _numbers(values)
        for kind, values in zip(statement.columns.values(), columns, strict=True)
    ]


def _given(columns: Mapping[str, str]) -> str:
    listed = ", ".join(f"?::{kind}[]" for kind in columns.values())
    return f"unnest({listed}) AS given ({', '.join(columns)})"


def _numbers(values: Sequence[int | float | None]) -> str:
    """Return an array of numbers; True is 1, as SQLite has it."""
    listed = str(list(values))[1:-1].replace("None", "NULL")
    return "{" + listed.replace("True", "1").replace("False", "0") + "}"


def _texts(values: Sequence[str | None]) -> str:
    """Return an array of texts. Most columns of text have few different values, so each is quoted once."""
    quoted = {value: _quoted(value) for value in set(values)}
    return "{" + ",".join([quoted[value] for value in values]) + "}"


def _quoted(value: str | None) -> str:
    if value is None:
        return "NULL"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
