"""Index of the text of devices by pieces of three characters: FTS5 on SQLite, ``pg_trgm`` on PostgreSQL.

PostgreSQL keeps its index itself. On SQLite the table holds no text and no positions (``detail='none'``), only which
devices contain a piece. So it is small, and what it finds is only a candidate: the text itself decides. Code that
writes the text of a device must update the index here. A trigger cannot: SQLite lets none write into a virtual table
while the schema is not trusted (``PRAGMA trusted_schema``).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.store.dialect import POSTGRESQL, SQLITE, SqlDialect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.transaction import Tx, View

_INDEXED: Final = ("id", "serial_number", "name", "tags")
_COLUMNS: Final = (*_INDEXED, "end_user_id")
_NAMED: Final = ", ".join(_INDEXED)

_END_USER: Final = re.compile("[A-Za-z0-9_]+")
_PIECE: Final = 3
_MAX_PIECES: Final = 8
"""So many pieces of a text narrow the search enough; more would be read in vain."""


def add(tx: Tx, device_pk: int) -> None:
    """Add a new device."""
    if not _has_table(tx):
        return
    tx.run(f"INSERT INTO device_search (rowid, {_NAMED}) SELECT pk, {_NAMED} FROM devices WHERE pk = ?", device_pk)  # noqa: S608 - constants


@contextmanager
def changing(tx: Tx, device_pk: int) -> Iterator[None]:
    """Change the text of this device in the block: its old text is removed from the index, the new one is added."""
    if _has_table(tx):
        tx.run("DELETE FROM device_search WHERE rowid = ?", device_pk)
    yield
    add(tx, device_pk)


def rebuild(tx: Tx) -> None:
    """Index all devices again, after other code wrote them."""
    if _has_table(tx):
        tx.run("INSERT INTO device_search (device_search) VALUES ('rebuild')")


def _has_table(view: View) -> bool:
    return view.dialect is SQLITE


def condition(dialect: SqlDialect, text: str) -> tuple[str, list[str]]:
    """Return the condition that the device ``d`` has this text in a column, ignoring the case of A to Z.

    For a longer text LIKE is slow where names are made to be hostile: it compares character by character at each of
    them (100,000 names: 0.7 s). ``instr`` compares memory (0.09 s), and is slower by as much where names are ordinary.
    PostgreSQL's index serves LIKE alone.
    """
    if dialect is POSTGRESQL or len(text) < _PIECE:
        pattern = "%" + re.sub(r"([%_!])", r"!\1", text) + "%"
        return _any_column(f"d.{{}} {dialect.like} ? ESCAPE '!'"), [pattern] * len(_COLUMNS)
    lowered = re.sub("[A-Z]", lambda letter: letter[0].lower(), text)
    return _any_column(dialect.contains("d.{}")), [lowered] * len(_COLUMNS)


def _any_column(comparison: str) -> str:
    return "(" + " OR ".join(comparison.format(column) for column in _COLUMNS) + ")"


def questions(dialect: SqlDialect, text: str, project_id: str) -> list[tuple[str, list[str]]]:
    """Return the queries for the rows of a project's devices with this text; none where no index helps.

    On SQLite end users are compared one by one, in an index of theirs (25 ms of 100,000), if the text may be in one.
    They are not in the index of texts, since every binding and reset would have to write it.
    """
    pieces = expression(text)
    if pieces is None:
        return []
    found, values = condition(dialect, text)
    if dialect is POSTGRESQL:
        living = "SELECT d.pk FROM devices d WHERE d.project_id = ? AND d.deleted_at IS NULL"
        return [(f"{living} AND {found}", [project_id, *values])]
    end_users = f"""SELECT pk FROM devices
        WHERE project_id = ? AND end_user_id IS NOT NULL AND {dialect.contains("end_user_id")}"""  # noqa: S608 - constants
    matching = f"""SELECT d.pk FROM device_search CROSS JOIN devices d ON d.pk = device_search.rowid
        WHERE device_search MATCH ? AND d.project_id = ? AND d.deleted_at IS NULL AND {found}"""  # noqa: S608 - constants
    asked = [(matching, [pieces, project_id, *values])]
    return [*asked, (end_users, [project_id, values[0]])] if _END_USER.fullmatch(text) else asked


def expression(text: str) -> str | None:
    """Return the index query that finds every device with this text, or None for less than three characters.

    It finds others too: those that have the pieces of the text in other places.
    """
    every = list(dict.fromkeys(text[start : start + _PIECE] for start in range(len(text) - _PIECE + 1)))
    if len(every) > _MAX_PIECES:
        every = [every[number * (len(every) - 1) // (_MAX_PIECES - 1)] for number in range(_MAX_PIECES)]
    return " AND ".join(map(_quoted, every)) or None


def _quoted(text: str) -> str:
    """Return the text as a string of FTS5's query language."""
    return '"' + text.replace('"', '""') + '"'
