"""The registry's file: who may read it, how it is opened, what a read sees."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, Context, Store, View, open_database, transact
from gateway.store.sqlite.checkpoint import KEPT_BYTES, MOST_PAGES, ROWS, Checkpointer
from gateway.store.sqlite.lock import OPENING_NAME
from tests.store.support import names, project
from tests.support.wait import eventually


def _modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


@pytest.mark.sqlite  # about files
async def test_the_files_are_readable_by_the_owner_alone(tmp_path: Path) -> None:
    """0700 for the directory, 0600 for the database, its WAL and its index, also under an open umask."""
    before = os.umask(0)
    try:
        async with Store(tmp_path / "data", Context()) as store:
            await store.write(project("ward"))
            await store.read(names)
            modes = _modes(tmp_path / "data")
    finally:
        os.umask(before)
    files = (*(f"{DATABASE_NAME}{suffix}" for suffix in ("", "-wal", "-shm")), OPENING_NAME)
    assert modes == dict.fromkeys(files, 0o600)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


@pytest.mark.sqlite  # how SQLite's file is opened
def test_the_database_is_durable_to_the_last_commit(tmp_path: Path) -> None:
    """WAL, ``synchronous=FULL``, foreign keys enforced, no trust in what the schema may hold."""
    with closing(open_database(tmp_path)) as connection:
        found = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0}


async def test_written_data_survives_a_restart(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Closed and opened again; the WAL is gone then. PostgreSQL has no files here."""
    async with Store(tmp_path, Context()) as store:
        await store.write(project("ward"))
    files = {DATABASE_NAME, OPENING_NAME} if pytestconfig.getoption("--engine") == "sqlite" else set()
    assert set(_modes(tmp_path)) == files
    async with Store(tmp_path, Context()) as store:
        assert await store.read(names) == {"ward"}


async def test_a_read_sees_one_state(tmp_path: Path) -> None:
    """What is committed between two of its statements shows in neither."""
    began, go_on = threading.Event(), threading.Event()

    def read(view: View) -> tuple[set[str], set[str]]:
        first = names(view)
        began.set()
        assert go_on.wait(20), "nobody wrote"
        return first, names(view)

    async with Store(tmp_path, Context()) as store:
        await store.write(project("one"))
        reading = asyncio.create_task(store.read(read))
        assert await asyncio.to_thread(began.wait, 20)
        await store.write(project("two"))
        go_on.set()
        assert await reading == ({"one"}, {"one"})
        assert await store.read(names) == {"one", "two"}


async def test_an_inline_read_sees_the_last_commit(tmp_path: Path) -> None:
    """Also by another process, and after one that raised: each begins a new transaction."""
    async with Store(tmp_path, Context()) as store:
        assert store.read_inline(names) == set()
        await store.write(project("own"))
        with pytest.raises(LookupError):
            store.read_inline(_broken)
        with closing(open_database(tmp_path)) as connection:
            transact(connection, Context(), project("another's"))
        assert store.read_inline(names) == {"own", "another's"}


def _broken(view: View) -> None:
    names(view)
    raise LookupError


async def test_a_read_that_raises_does_not_affect_others(tmp_path: Path) -> None:
    """The same reader thread reads on, and sees what was committed since."""
    async with Store(tmp_path, Context()) as store:
        for number in range(4):
            with pytest.raises(LookupError):
                await store.read(_broken)
            await store.write(project(f"p{number}"))
            assert len(await store.read(names)) == number + 1


async def test_a_read_cannot_write(tmp_path: Path) -> None:
    """Its connection is read only."""
    async with Store(tmp_path, Context()) as store:
        with pytest.raises(StoreError, match=r"read-?only"):
            await store.read(lambda view: view.connection.execute("INSERT INTO meta VALUES ('a', 'b')"))
        assert await store.read(lambda view: view.value("SELECT count(*) FROM meta")) == 0


@pytest.mark.sqlite  # PostgreSQL's connections begin no transaction for a few look-ups
async def test_an_inline_read_cannot_write(tmp_path: Path) -> None:
    """Its connection is read only as well."""
    async with Store(tmp_path, Context()) as store:
        with pytest.raises(StoreError, match="readonly"):
            store.read_inline(lambda view: view.connection.execute("INSERT INTO meta VALUES ('a', 'b')"))


async def test_the_results_of_the_last_writes_reach_their_callers(tmp_path: Path) -> None:
    """Leaving the store waits for what was handed over."""
    async with Store(tmp_path, Context()) as store:
        writes = [asyncio.create_task(store.write(project(f"p{number}"))) for number in range(20)]
        await asyncio.sleep(0)
    assert all(write.done() for write in writes)
    assert len({await write for write in writes}) == 20


_OPEN = "import pathlib, sys; from gateway.store import open_database; open_database(pathlib.Path(sys.argv[1])).close()"


def test_processes_can_create_the_database_concurrently(tmp_path: Path) -> None:
    """A first start beside a command line: each waits for the other, none meets half-made tables."""
    for attempt in range(2):
        data_dir = tmp_path / str(attempt)
        started = [subprocess.Popen([sys.executable, "-c", _OPEN, str(data_dir)]) for _ in range(4)]
        assert [process.wait(60) for process in started] == [0, 0, 0, 0]


@pytest.mark.sqlite  # locks of SQLite's file
def test_opening_twice_releases_no_lock(tmp_path: Path) -> None:
    """POSIX drops all locks that a process has on a file when it closes any descriptor of it; ours stay."""
    with closing(open_database(tmp_path)) as connection:
        transact(connection, Context(), project("ward"))
        open_database(tmp_path).close()
        take_over = (
            "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode = DELETE')"
        )
        ended = subprocess.run(
            [sys.executable, "-c", take_over, str(tmp_path / DATABASE_NAME)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "database is locked" in ended.stderr


def test_a_connection_can_be_used_by_another_thread(tmp_path: Path) -> None:
    """Connections are made in one thread and used in the writer's."""
    with closing(open_database(tmp_path)) as connection:
        found: list[sqlite3.Row] = []
        thread = threading.Thread(target=lambda: found.extend(connection.execute("SELECT 1")))
        thread.start()
        thread.join()
    assert len(found) == 1


@pytest.mark.sqlite  # SQLite's write-ahead log
async def test_checkpoints_run_beside_the_writer(tmp_path: Path) -> None:
    """While the store is open, and by no commit: the writer itself would only begin at ten thousand pages."""
    async with Store(tmp_path, Context()) as store:
        before = (tmp_path / DATABASE_NAME).stat().st_size
        assert await store.write(lambda tx: tx.value("PRAGMA wal_autocheckpoint")) == MOST_PAGES
        await store.write(lambda tx: [project(f"p{number}")(tx) for number in range(ROWS)])
        await eventually(lambda: (tmp_path / DATABASE_NAME).stat().st_size > before, "the database has grown")
        assert len(await store.read(names)) == ROWS


@pytest.mark.sqlite  # SQLite's write-ahead log
async def test_a_log_that_has_grown_is_cut(tmp_path: Path) -> None:
    """A backup reads while much is written: the log grows by all of it, and gives it back once it starts over."""
    wal = tmp_path / f"{DATABASE_NAME}-wal"
    async with Store(tmp_path, Context()) as store:
        with closing(open_database(tmp_path)) as backup:
            await store.write(project("first"))
            backup.execute("BEGIN")
            backup.execute("SELECT * FROM projects").fetchall()
            await store.write(lambda tx: tx.run("CREATE TABLE much (bytes)"))
            await store.write(lambda tx: tx.run("INSERT INTO much VALUES (zeroblob(?))", KEPT_BYTES))
            assert wal.stat().st_size > KEPT_BYTES
            backup.execute("ROLLBACK")
        await store.write(lambda tx: [project(f"p{number}")(tx) for number in range(ROWS)])

        async def is_cut() -> bool:
            await store.write(lambda tx: tx.run("UPDATE projects SET name = name"))
            return wal.stat().st_size <= KEPT_BYTES

        await eventually(is_cut, "the log was cut")


async def test_a_failed_checkpoint_is_reported() -> None:
    """The writer goes on: what is committed is safe in the log."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.close()
        return connection

    with capture_logs() as logs:
        checkpointer = Checkpointer(connect)
        checkpointer.start()
        checkpointer.committed(ROWS)
        await eventually(lambda: logs, "it was told")
        await asyncio.to_thread(checkpointer.stop)
    assert [each["event"] for each in logs] == ["store.not_checkpointed"]


async def test_a_reset_change_counter_is_noticed() -> None:
    """SQLite's has 32 bits: a gateway that runs for months has the log brought in as before."""
    run: list[str] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.set_trace_callback(run.append)
        return connection

    checkpointer = Checkpointer(connect)
    checkpointer.start()
    checkpointer.committed(2**31 - 1)
    await eventually(lambda: len(run) == 1, "the log was brought in")
    checkpointer.committed(ROWS - 2**31)
    await eventually(lambda: len(run) == 2, "it was again")
    await asyncio.to_thread(checkpointer.stop)
