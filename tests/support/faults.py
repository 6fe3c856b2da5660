"""Faults of a registry on either engine: a full disk, a database that is away, statements that fail, a lock."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final

from gateway.store import DATABASE_NAME, Store, Tx
from gateway.store.dialect import SQLITE

_REFUSING: Final = "nobody foresaw this"


def refuse(tx: Tx, name: str, moment: str, table: str, condition: str = "") -> None:
    """Let each statement of this kind fail, such as ``INSERT`` into a table; ``condition`` is about the row ``NEW``."""
    when = f"WHEN ({condition})" if condition else ""
    if tx.dialect is SQLITE:
        tx.run(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} {when} BEGIN SELECT RAISE(ABORT, '{_REFUSING}'); END")
        return
    _failing_function(tx, name, "23514", _REFUSING)
    tx.run(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION {name}()")


def allow(tx: Tx, name: str, table: str) -> None:
    """Take such a failure away."""
    tx.run(f"DROP TRIGGER {name}" + ("" if tx.dialect is SQLITE else f" ON {table}"))


@asynccontextmanager
async def full_disk(store: Store) -> AsyncIterator[None]:
    """Let the block's writes find no room. PostgreSQL reports what it reports on a full disk."""
    await store.write(_fill)
    try:
        yield
    finally:
        await store.write(_make_room)


def _fill(tx: Tx) -> None:
    if tx.dialect is SQLITE:
        tx.value(f"PRAGMA max_page_count = {tx.value('PRAGMA page_count')}")
        return
    _failing_function(tx, "full_disk", "53100", "could not extend file: No space left on device")
    for table in _tables(tx):
        tx.run(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION full_disk()")


def _make_room(tx: Tx) -> None:
    if tx.dialect is SQLITE:
        tx.value("PRAGMA max_page_count = 1000000")
        return
    tx.run("DROP FUNCTION full_disk CASCADE")


def _failing_function(tx: Tx, name: str, state: str, message: str) -> None:
    tx.run(
        f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '{state}'; END $$"""
    )


def _tables(tx: Tx) -> list[str]:
    return [row[0] for row in tx.all("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]


@contextmanager
def away(store: Store, data_dir: Path) -> Iterator[None]:
    """Let the registry of this data directory be out of reach during the block."""
    if store.is_local:
        (data_dir / DATABASE_NAME).rename(data_dir / "away")
        yield
        (data_dir / "away").rename(data_dir / DATABASE_NAME)
        return
    from tests.support import postgres  # noqa: PLC0415 - only a run on PostgreSQL starts a server

    with postgres.unreachable(postgres.database(data_dir)):
        yield


@asynccontextmanager
async def locked(store: Store, data_dir: Path) -> AsyncIterator[None]:
    """Let another process hold the lock of all writes. A write of this store gives up after half a second."""
    await store.write(_hurry)
    with _held_by_sqlite(data_dir) if store.is_local else _held_by_postgres(data_dir):
        yield


def _hurry(tx: Tx) -> None:
    if tx.dialect is SQLITE:
        tx.run("PRAGMA busy_timeout = 20")
    else:
        vars(tx.connection)["patience"] = 0.5


@contextmanager
def _held_by_sqlite(data_dir: Path) -> Iterator[None]:
    with closing(sqlite3.connect(data_dir / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def _held_by_postgres(data_dir: Path) -> Iterator[None]:
    from tests.support import postgres  # noqa: PLC0415 - only a run on PostgreSQL starts a server

    with postgres.locked(postgres.database(data_dir)):
        yield
