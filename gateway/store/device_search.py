"""Index of the text of devices by pieces of three characters: FTS5 on SQLite, ``pg_trgm`` on PostgreSQL.

PostgreSQL keeps its index itself. On SQLite two tables hold no text and no positions (``detail='none'``), only which
devices contain a piece. So they are small, and what they find is only a candidate: the text itself decides. Code that
writes the text of a device must update the index here. A trigger cannot: SQLite lets none write into a virtual table
while the schema is not trusted (``PRAGMA trusted_schema``). End users have a separate table, since a binding and
a reset change nothing else.

A text of one or two characters has no piece. It is looked for at the beginning of serial numbers, names and tags, whose
own indexes find it. Ids and end users begin alike, so such a text would find all of them or none.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Final

from gateway.store import short_ids
from gateway.store.dialect import POSTGRESQL, SQLITE, SqlDialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.store.transaction import Tx, View

_INDEXED: Final = ("id", "serial_number", "name", "tags")
_COLUMNS: Final = (*_INDEXED, "end_user_id")
_TEXTS: Final = "device_search"
_END_USERS: Final = "device_search_end_users"
_TABLES: Final = {_TEXTS: _INDEXED, _END_USERS: ("end_user_id",)}

_END_USER: Final = re.compile("[A-Za-z0-9_]+")
_PIECE: Final = 3
_MAX_PIECES: Final = 8
"""So many pieces of a text narrow the search enough; more would be read in vain."""
_RARE: Final = (2_000, 20_000)
"""A piece that fewer devices have is rare. Only if no piece of a text is, the second number decides."""
_RAREST: Final = 3


_AT_BEGINNING: Final = ("d.serial_number", "d.name", "(',' || d.tags)")
_LAST: Final = "\U0010ffff"
"""No text has this code point. So what begins with a text lies between that text and that text with this after it."""
_SERIAL_NUMBERS: Final = "SELECT pk FROM devices WHERE project_id = ? AND serial_number >= ? AND serial_number < ?"
_NAME: Final = "lower(coalesce(name, ''))"
_NAMES: Final = f"""SELECT pk FROM devices WHERE {short_ids.like("project_id")} AND {_NAME} >= ? AND {_NAME} < ?
    AND deleted_at IS NULL"""  # noqa: S608 - constants
_TAGS: Final = "SELECT device_pk FROM device_tags WHERE project_id = ? AND tag >= ? AND tag < ?"


def add(tx: Tx, device_pk: int) -> None:
    """Add a new device. FTS5 counts its rows, so one without an end user is a row of each table, too."""
    for table in _TABLES:
        _add(tx, table, device_pk)


@contextmanager
def changing(tx: Tx, device_pk: int) -> Iterator[None]:
    """Change the text of this device in the block: its old text is removed from the index, the new one is added."""
    with _changing(tx, _TEXTS, device_pk):
        yield


@contextmanager
def changing_end_user(tx: Tx, device_pk: int) -> Iterator[None]:
    """Change the end user of this device in the block, as :func:`changing` does it for the other texts."""
    with _changing(tx, _END_USERS, device_pk):
        yield


@contextmanager
def _changing(tx: Tx, table: str, device_pk: int) -> Iterator[None]:
    if _has_tables(tx):
        tx.run(f"DELETE FROM {table} WHERE rowid = ?", device_pk)  # noqa: S608 - a constant
    yield
    _add(tx, table, device_pk)


def _add(tx: Tx, table: str, device_pk: int) -> None:
    if _has_tables(tx):
        names = ", ".join(_TABLES[table])
        tx.run(f"INSERT INTO {table} (rowid, {names}) SELECT pk, {names} FROM devices WHERE pk = ?", device_pk)  # noqa: S608 - constants


def rebuild(tx: Tx) -> None:
    """Index all devices again, after other code wrote them."""
    for table in _TABLES if _has_tables(tx) else ():
        tx.run(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")  # noqa: S608 - a constant


def _has_tables(view: View) -> bool:
    return view.dialect is SQLITE


def condition(dialect: SqlDialect, text: str) -> tuple[str, list[str]]:
    """Return the condition that a search for this text finds the device ``d``, ignoring the case of A to Z.

    For a longer text LIKE is slow where names are made to be hostile: it compares character by character at each of
    them (100,000 names: 0.7 s). ``instr`` compares memory (0.09 s), and is slower by as much where names are ordinary.
    PostgreSQL's index serves LIKE alone.
    """
    if len(text) < _PIECE:
        pattern = _escaped(text) + "%"
        like = _any(_AT_BEGINNING, f"{{}} {dialect.like} ? ESCAPE '!'")
        return like, [pattern, pattern, f"%,{pattern}"]
    return _condition(dialect, text, _COLUMNS)


def _condition(dialect: SqlDialect, text: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    if dialect is POSTGRESQL:
        return _any(columns, f"d.{{}} {dialect.like} ? ESCAPE '!'"), [f"%{_escaped(text)}%"] * len(columns)
    return _any(columns, dialect.contains("d.{}")), [_lowered(text)] * len(columns)


def _escaped(text: str) -> str:
    return re.sub(r"([%_!])", r"!\1", text)


def _lowered(text: str) -> str:
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), text)


def _any(columns: Sequence[str], comparison: str) -> str:
    return "(" + " OR ".join(comparison.format(column) for column in columns) + ")"


def candidates(view: View, project_id: str, text: str, most: int) -> list[int] | None:
    """Return row numbers of the project's devices that a search for this text finds, or None if more than ``most``.

    Some of them may be deleted, or of another project.
    """
    pieces = _pieces(text)
    found = set[int]()
    for sql, values in _questions(view, project_id, text, pieces) if pieces else [_beginnings(project_id, text)]:
        rows = view.all(f"{sql} LIMIT ?", *values, most + 1)
        found |= {row[0] for row in rows}
        if len(rows) > most or len(found) > most:
            return None
    return list(found)


def _beginnings(project_id: str, text: str) -> tuple[str, list[str]]:
    """Return the query for serial numbers, names and tags that begin with a short text: a few ranges of their indexes.

    Serial numbers and tags lie in their index as they are written, so each spelling of the text is a separate range.
    """
    spellings = ["".join(each) for each in product(*(_cases(letter) for letter in text))]
    ranges = [*((sql, each) for sql in (_SERIAL_NUMBERS, _TAGS) for each in spellings), (_NAMES, _lowered(text))]
    return (
        " UNION ALL ".join(sql for sql, _ in ranges),
        [value for _, each in ranges for value in (project_id, each, each + _LAST)],
    )


def _cases(letter: str) -> str:
    return letter.lower() + letter.upper() if letter.isascii() and letter.isalpha() else letter


def _questions(view: View, project_id: str, text: str, pieces: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the queries that find them together. An end user has few kinds of characters, so often one is enough."""
    if view.dialect is POSTGRESQL:
        found, values = condition(view.dialect, text)
        living = "SELECT d.pk FROM devices d WHERE d.project_id = ? AND d.deleted_at IS NULL"
        yield f"{living} AND {found}", [project_id, *values]
        return
    for table in _TABLES if _END_USER.fullmatch(text) else (_TEXTS,):
        rarest = _rarest(view, table, pieces)
        if rarest:
            found, values = _condition(view.dialect, text, _TABLES[table])
            yield (
                f"""SELECT d.pk FROM {table} CROSS JOIN devices d ON d.pk = {table}.rowid
                    WHERE {table} MATCH ? AND d.project_id = ? AND d.deleted_at IS NULL AND {found}""",  # noqa: S608 - constants
                [" AND ".join(rarest), project_id, *values],
            )


def _rarest(view: View, table: str, pieces: list[str]) -> list[str]:
    """Return the pieces by which to look: the rarest, or all where each is frequent; none where one does not occur.

    The list of a piece is read to its end, so a piece that every device has costs most and narrows least.
    """
    for most in _RARE:
        counts = [(_count(view, table, piece, most), piece) for piece in pieces]
        rare = sorted(each for each in counts if each[0] < most)
        if rare:
            return [piece for _, piece in rare[:_RAREST]] if rare[0][0] else []
    return pieces


def _count(view: View, table: str, piece: str, most: int) -> int:
    statement = f"SELECT count(*) FROM (SELECT rowid FROM {table} WHERE {table} MATCH ? LIMIT ?)"  # noqa: S608 - constants
    counted: int = view.value(statement, piece, most)
    return counted


def _pieces(text: str) -> list[str]:
    """Return the pieces of this text as FTS5's queries have them, at most :data:`_MAX_PIECES`; none of a short one."""
    every = list(dict.fromkeys(text[start : start + _PIECE] for start in range(len(text) - _PIECE + 1)))
    if len(every) > _MAX_PIECES:
        every = [every[number * (len(every) - 1) // (_MAX_PIECES - 1)] for number in range(_MAX_PIECES)]
    return [_quoted(each) for each in every]


def _quoted(text: str) -> str:
    """Return the text as a string of FTS5's query language."""
    return '"' + text.replace('"', '""') + '"'
