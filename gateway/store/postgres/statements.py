"""Statements as psycopg takes them, with their values in the text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACEHOLDER: Final = re.compile(r"\?([0-9]*)|%")
TOGETHER: Final = 500
"""So many statements of a list go to the server as one message."""


class Changes(NamedTuple):
    """What a list of statements did."""

    rowcount: int


@lru_cache(maxsize=1_024)
def translated(sql: str) -> tuple[str, bool]:
    """Return the statement with psycopg's placeholders, and whether they are numbered."""
    numbered = bool(re.search(r"\?[0-9]", sql))

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "%":
            return "%%"
        return f"%(p{found[1]})s" if found[1] else "%s"

    return (_PLACEHOLDER.sub(replaced, sql) if "?" in sql else sql), numbered


def _given(values: Sequence[Any], *, numbered: bool) -> Any:
    if not values:
        return None
    return {f"p{place}": value for place, value in enumerate(values, 1)} if numbered else values


def text_of(raw: psycopg.Connection[Any], sql: str, values: Sequence[Any]) -> str:
    """Return the statement with its values."""
    statement, numbered = translated(sql)
    given = _given(values, numbered=numbered)
    return statement if given is None else psycopg.ClientCursor(raw).mogrify(statement, given)


def many(raw: psycopg.Connection[Any], statement: str, rows: Sequence[Sequence[Any]]) -> Changes:
    """Send the statements of many rows as one message.

    psycopg would send one message a row (pipeline). No timeout of the server runs between these, so a gateway that is
    paused there would hold the registry's lock until it goes on.
    """
    cursor = psycopg.ClientCursor(raw)
    changed = 0
    for begin in range(0, len(rows), TOGETHER):
        part = rows[begin : begin + TOGETHER]
        cursor.execute(";".join(cursor.mogrify(statement, row) for row in part).encode())
        changed += _row_count(cursor)
    return Changes(changed)


def _row_count(cursor: psycopg.Cursor[Any]) -> int:
    """Return how many rows all statements of a message changed."""
    changed = cursor.rowcount
    while cursor.nextset():
        changed += cursor.rowcount
    return changed
