"""Index of the text of devices: FTS5 by pieces of three characters.

The table holds no text and no positions (``detail='none'``), only which devices contain a piece. So it is small, and
what it finds is only a candidate: the text itself decides. Code that writes the text of a device must update the index
here. A trigger cannot: SQLite lets none write into a virtual table while the schema is not trusted (``PRAGMA
trusted_schema``).
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.sqlite.connection import Tx

_INDEXED: Final = ("id", "serial_number", "name")
_COLUMNS: Final = (*_INDEXED, "end_user_id")
_NAMED: Final = ", ".join(_INDEXED)

_LIKE: Final = "(" + " OR ".join(f"d.{column} LIKE ? ESCAPE '!'" for column in _COLUMNS) + ")"
_INSTR: Final = "(" + " OR ".join(f"instr(lower(d.{column}), ?) > 0" for column in _COLUMNS) + ")"
_FOUND: Final = f"""SELECT d.pk FROM device_search CROSS JOIN devices d ON d.pk = device_search.rowid
    WHERE device_search MATCH ? AND d.project_id = ? AND d.deleted_at IS NULL AND {_INSTR}"""  # noqa: S608 - constants
_END_USERS: Final = """SELECT pk FROM devices
    WHERE project_id = ? AND end_user_id IS NOT NULL AND instr(lower(end_user_id), ?) > 0"""

_END_USER: Final = re.compile("[A-Za-z0-9_]+")
_PIECE: Final = 3
_MAX_PIECES: Final = 8
"""So many pieces of a text narrow the search enough; more would be read in vain."""


def add(tx: Tx, device_pk: int) -> None:
    """Add a new device."""
    tx.run(f"INSERT INTO device_search (rowid, {_NAMED}) SELECT pk, {_NAMED} FROM devices WHERE pk = ?", device_pk)  # noqa: S608 - constants


@contextmanager
def changing(tx: Tx, device_pk: int) -> Iterator[None]:
    """Change the text of this device in the block: its old text is removed from the index, the new one is added."""
    tx.run("DELETE FROM device_search WHERE rowid = ?", device_pk)
    yield
    add(tx, device_pk)


def rebuild(tx: Tx) -> None:
    """Index all devices again, after other code wrote them."""
    tx.run("INSERT INTO device_search (device_search) VALUES ('rebuild')")


def condition(text: str) -> tuple[str, list[str]]:
    """Return the condition that the device ``d`` has this text in a column, ignoring the case of A to Z.

    For a longer text LIKE is slow where names are made to be hostile: it compares character by character at each of
    them (100,000 names: 0.7 s). ``instr`` compares memory (0.09 s), and is slower by as much where names are ordinary.
    """
    if len(text) < _PIECE:
        return _LIKE, ["%" + re.sub(r"([%_!])", r"!\1", text) + "%"] * len(_COLUMNS)
    return _INSTR, [re.sub("[A-Z]", lambda letter: letter[0].lower(), text)] * len(_COLUMNS)


def questions(text: str, project_id: str) -> list[tuple[str, list[str]]]:
    """Return the queries for the rows of a project's devices with this text; none where no index helps.

    End users are compared one by one, in an index of theirs (25 ms of 100,000), if the text may be in one. They are not
    in the index of texts, since every binding and reset would have to write it.
    """
    pieces = expression(text)
    if pieces is None:
        return []
    _, values = condition(text)
    end_users = [(_END_USERS, [project_id, values[0]])] if _END_USER.fullmatch(text) else []
    return [(_FOUND, [pieces, project_id, *values]), *end_users]


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
