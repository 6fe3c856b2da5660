"""Prepared statements: what a connection executes often, the server parses and plans once.

``PREPARE`` and ``EXECUTE`` are statements themselves, so an ``EXECUTE`` can be posted like any other statement.

Behind a pooler such as PgBouncer, each transaction may come to another session of the server, and only some of those
would know the statement. A pooler tells its clients its own process number. So a connection whose server names
another number than the one it logged in with prepares nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.adapt import Transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import abc

OFTEN: Final = 3
"""A statement that was executed so often on a connection is prepared."""
MOST: Final = 200
"""Statements that a connection has prepared, at most. Each takes the server some ten kilobytes."""
_COUNTED: Final = 1_000
"""Statements whose uses are counted, at most."""
_KINDS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_TYPES: Final = {int: "bigint", bool: "bigint", float: "numeric"}
"""Of other values the server finds the type by where they stand, as it does where they stand in the text."""
_PLACEHOLDER: Final = re.compile(r"\?([0-9]*)")


class _Use(NamedTuple):
    """A statement, and the types of its values. The same statement with others may mean something else."""

    sql: str
    types: tuple[type, ...]


class PreparedStatements:
    """The prepared statements of one connection to a server."""

    def __init__(self, *, allowed: bool = True) -> None:
        self._uses: dict[_Use, int] = {}
        self._names: dict[_Use, str | None] = {}
        self._wanted: list[_Use] = []
        self._literals: abc.Transformer | None = None
        self._is_direct = None if allowed else False

    def text_of(self, raw: psycopg.Connection[Any], sql: str, values: Sequence[Any]) -> str | None:
        """Return the ``EXECUTE`` of a statement with these values; None where it is not prepared."""
        use = _Use(sql, tuple(map(type, values)))
        name = self._names.get(use)
        if name is None:
            self._count(use)
            return None
        if not values:
            return f"EXECUTE {name}"
        if self._literals is None:
            self._literals = Transformer(raw)
        return f"EXECUTE {name} ({b', '.join(map(self._literals.as_literal, values)).decode()})"

    def _count(self, use: _Use) -> None:
        if use in self._names or not use.sql.startswith(_KINDS):
            return
        if len(self._uses) >= _COUNTED:
            self._uses.clear()
        times = self._uses[use] = self._uses.get(use, 0) + 1
        if times == OFTEN:
            self._wanted.append(use)

    def prepare_wanted(self, raw: psycopg.Connection[Any]) -> None:
        """Prepare what was executed often enough. A statement that cannot be prepared stays as it is.

        It is done outside of transactions, which a failure would end.

        Raises:
            psycopg.Error: the server cannot be reached.
        """
        wanted, self._wanted = self._wanted, []
        for use in wanted:
            if len(self._names) < MOST and self._may_prepare(raw):
                self._names[use] = _prepare(raw, f"s{len(self._names)}", use)

    def _may_prepare(self, raw: psycopg.Connection[Any]) -> bool:
        if self._is_direct is None:
            ((number,),) = raw.execute("SELECT pg_backend_pid()").fetchall()
            self._is_direct = number == raw.info.backend_pid
        return self._is_direct


def _prepare(raw: psycopg.Connection[Any], name: str, use: _Use) -> str | None:
    types = f"({', '.join(_TYPES.get(each, 'unknown') for each in use.types)})" if use.types else ""
    try:
        raw.execute(f"PREPARE {name} {types} AS {_numbered(use.sql)}".encode())
    except psycopg.Error:  # such as a value whose type nothing tells
        if raw.closed:
            raise
        return None
    return name


def _numbered(sql: str) -> str:
    """Return the statement with the placeholders of PostgreSQL."""
    pieces = _PLACEHOLDER.split(sql)
    places = (place or str(number) for number, place in enumerate(pieces[1::2], 1))
    return pieces[0] + "".join(f"${place}{text}" for place, text in zip(places, pieces[2::2], strict=True))
