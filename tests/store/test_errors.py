"""A database that is full, busy, read only or damaged: said so, nothing half done, and well again afterwards."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, Context, Store, Tx, key_sql, open_database, transact
from gateway.store.sqlite.connection import connect
from tests.store.support import Gate, names, project, queued, writing

pytestmark = pytest.mark.sqlite
"""Faults of SQLite's file; tests/store/test_postgres_faults.py has those of a server."""


def _large(tx: Tx) -> None:
    tx.run("INSERT INTO meta (key, value) VALUES ('large', ?)", "x" * 1_000_000)


def _meta(tx: Tx) -> int:
    count: int = tx.value("SELECT count(*) FROM meta")
    return count


async def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """The write fails with what to do, those of its group with it, since none was committed; with room all goes on."""
    async with writing(tmp_path) as bench:
        bench.connection.execute("PRAGMA max_page_count = 1")  # SQLite makes it the present size: no more room
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        beside, large = await queued(bench.writer, [project("beside"), _large])
        gate.open()
        await asyncio.gather(*first)
        for refused in (beside, large):
            with pytest.raises(StoreError, match=r"full.*Nothing was changed"):
                await refused
        assert await bench.writer.write(names) == set()
        bench.connection.execute("PRAGMA max_page_count = 100000")
        await bench.writer.write(_large)
        assert await bench.writer.write(_meta) == 1


async def test_a_lock_of_another_process_is_reported(tmp_path: Path) -> None:
    """Waited for, then said; written as soon as the other lets go."""
    async with writing(tmp_path) as bench:
        with closing(sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await bench.writer.write(project("one"))
            other.execute("ROLLBACK")
        await bench.writer.write(project("two"))
        assert await bench.writer.write(names) == {"two"}


async def test_a_read_only_database_is_reported(tmp_path: Path) -> None:
    """The same, and the same again."""
    async with writing(tmp_path) as bench:
        bench.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="readonly"):
            await bench.writer.write(project("one"))
        bench.connection.execute("PRAGMA query_only = OFF")
        await bench.writer.write(project("two"))


@pytest.mark.damages_registry
async def test_a_damaged_database_is_reported(tmp_path: Path) -> None:
    """Pages overwritten behind SQLite's back: an error of the store, not a crash, and the thread lives on."""
    with closing(open_database(tmp_path)) as connection:
        transact(connection, Context(), project("one"))
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'projects'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with (tmp_path / DATABASE_NAME).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    async with writing(tmp_path) as bench:
        for _ in range(2):
            with pytest.raises(StoreError, match="malformed"):
                await bench.writer.write(key_sql.projects)
        assert await bench.writer.write(_meta) == 0
    async with Store(tmp_path, Context()) as store:
        with pytest.raises(StoreError, match=r"could not be read.*malformed"):
            await store.read(key_sql.projects)


@pytest.mark.parametrize(
    "content", [b"not a database, whatever its name says. " * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
@pytest.mark.damages_registry
def test_a_file_that_is_no_database_is_reported(tmp_path: Path, content: bytes) -> None:
    """Refused with its path; the file is left as it was."""
    (tmp_path / DATABASE_NAME).write_bytes(content)
    with pytest.raises(StoreError, match=DATABASE_NAME):
        open_database(tmp_path)
    assert (tmp_path / DATABASE_NAME).read_bytes() == content


def test_an_unusable_directory_is_reported(tmp_path: Path) -> None:
    """A file in its place, a database that is a directory, one that is not there and may not be made."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "data" / DATABASE_NAME).mkdir(parents=True)
    for data_dir in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "data"):
        with pytest.raises(StoreError, match=data_dir.name):
            open_database(data_dir)
    with pytest.raises(StoreError, match="cannot be opened"):
        connect(tmp_path / "nowhere" / DATABASE_NAME, read_only=True)


def test_a_failed_write_is_rolled_back(tmp_path: Path) -> None:
    """The command line's way of writing: the same promises."""

    def half(tx: Tx) -> None:
        project("half")(tx)
        raise LookupError

    with closing(open_database(tmp_path)) as connection, closing(open_database(tmp_path)) as other:
        with pytest.raises(LookupError):
            transact(connection, Context(), half)
        other.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA busy_timeout = 20")
        with pytest.raises(StoreError, match="locked"):
            transact(connection, Context(), project("one"))
        other.execute("ROLLBACK")
        transact(connection, Context(), project("one"))
        with pytest.raises(sqlite3.IntegrityError):
            transact(connection, Context(), project("one"))
        assert transact(connection, Context(), names) == {"one"}
