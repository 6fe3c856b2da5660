"""Rows written in bulk, and the size of a database, on either engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.store import Tx, View

Progress = Callable[[str, int, int], None]
"""Called with what is written, how much of it is, and how much there will be."""


def silent(what: str, done: int, of: int) -> None:
    """Show no progress."""
    del what, done, of


def insert(tx: Tx, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Add rows, by COPY where the engine has it."""
    if copy := getattr(tx.connection, "copy_rows", None):
        copy(table, columns, rows)
    else:
        marks = ", ".join("?" * len(columns))
        tx.run_many(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608 - constants


def disk_bytes(view: View) -> int:
    """Return the size of the database, without the write-ahead log."""
    if view.dialect.partitioned:
        return int(view.value(view.dialect.database_bytes))
    return int(view.value("PRAGMA page_count") * view.value("PRAGMA page_size"))
