"""A registry moves from SQLite to PostgreSQL: every row, resumable, compared, and the source untouched."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.core.postgres_address import PostgresAddress
from gateway.errors import ConflictError, StoreError
from gateway.runtime.postgres_server import USER, PostgresServer
from gateway.store import DATABASE_NAME, View, device_count_sql, moving, open_existing
from gateway.store.device_count_sql import DeviceCounts
from gateway.store.location import postgres_engine
from gateway.store.moving import LEFT, Contents, Move
from gateway.store.opening import open_sqlite
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.sqlite.lock import exclusive
from tests.store.older_registry import ROWS, some_data
from tests.support.postgres import execute, new_database
from tests.support.small_disk import full, may_mount, small_disk

HEARTBEATS = 12


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A data directory with a row in every table, some heartbeats more, and a NUL in a text."""
    with closing(open_sqlite(tmp_path / "data")) as connection:
        some_data(connection)
        beat = "INSERT INTO heartbeats (device_pk, received_at, battery_percent) VALUES (1, ?, ?)"
        connection.executemany(beat, [(number, number / 8) for number in range(HEARTBEATS)])
        connection.execute("UPDATE refusals SET message = 'a' || char(0) || 'b'")
        connection.execute("DELETE FROM outbox")
    return tmp_path / "data"


def files(folder: Path) -> dict[str, bytes]:
    """What is in the registry's files. A reader makes an empty log, and an index of it."""
    found = {each.name: each.read_bytes() for each in folder.glob(f"{DATABASE_NAME}*")}
    return {name: content for name, content in found.items() if content and not name.endswith("-shm")}


def move(source: Path, address: PostgresAddress) -> moving.Moved:
    """Move it."""
    return Move(source, postgres_engine(address)).run()


def test_every_table_is_moved(server: PostgresServer, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command; the target then serves commands, gives higher numbers, and is the target of no other move."""
    address, before = new_database(server, "moved"), files(source)
    words = ["migrate", "--to", address.url, "--data-dir", str(source), "--json"]
    assert main([*words, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["tables"]["heartbeats"] == HEARTBEATS + 1
    assert plan["seconds"] >= 0
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["tables"]) == set(ROWS) - set(LEFT)
    assert {name: found["rows"] for name, found in told["tables"].items()} == {
        **dict.fromkeys(told["tables"], 1),
        "heartbeats": HEARTBEATS + 1,
        "outbox": 0,
        "brokers": 2,
    }
    assert told["replaced"] == 1
    assert files(source) == before
    with closing(open_existing(address)) as connection:
        assert connection.execute("SELECT message FROM refusals").fetchall()[0][0] == "a\ufffdb"
        insert = "INSERT INTO refusals (at, source, code, message, payload) VALUES (1, '', '', '', '') RETURNING id"
        assert connection.execute(insert).fetchall()[0][0] == 2
        assert connection.execute("SELECT nextval('outbox_seq')").fetchall()[0][0] == 2
        assert connection.execute("SELECT next_event()").fetchall()[0][0] == 2
        counts = device_count_sql.kept(View(connection))
        assert counts == {"proj_1": DeviceCounts(total=1, seen=1, online=1)}
        connection.execute("UPDATE health SET connection = 'offline', low_battery = 1")
        assert device_count_sql.kept(View(connection)) == {"proj_1": DeviceCounts(total=1, seen=1, low_battery=1)}
    assert main(["keys", "list", "--database", address.url]) == 0
    assert "key_1" in capsys.readouterr().out
    assert main(words) == 5
    assert "holds a registry. Nothing was changed. Name an empty database" in capsys.readouterr().err


def test_an_interrupted_move_goes_on(
    server: PostgresServer, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Meanwhile no gateway uses the target; nothing is copied twice, and what was copied is compared as well."""
    monkeypatch.setattr(moving, "BATCH", 5)
    address = new_database(server, "interrupted")
    real, copied = PostgresConnection.copy_rows, []

    def copy_rows(self: PostgresConnection, table: str, columns: list[str], rows: list[tuple[object, ...]]) -> None:
        copied.append((table, len(rows)))
        if copied.count(("heartbeats", 5)) == 2:
            raise KeyboardInterrupt
        real(self, table, columns, rows)

    with monkeypatch.context() as patch:
        patch.setattr(PostgresConnection, "copy_rows", copy_rows)
        with pytest.raises(KeyboardInterrupt):
            move(source, address)
    assert main(["keys", "list", "--database", address.url]) == 1
    assert "is moved there and not yet complete. Run 'gateway migrate' again" in capsys.readouterr().err
    moved = move(source, address)
    assert moved.resumed
    assert moved.tables["heartbeats"].rows == HEARTBEATS + 1
    assert main(["keys", "list", "--database", address.url]) == 0


def test_a_source_that_has_changed_is_refused(
    server: PostgresServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted move goes on from the state that it began with alone."""
    address = new_database(server, "changed")

    def interrupted(*_: object) -> Contents:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Move, "_compared", interrupted)
        with pytest.raises(KeyboardInterrupt):
            move(source, address)
    with closing(open_sqlite(source)) as connection:
        connection.execute("UPDATE devices SET name = 'other'")
    with pytest.raises(ConflictError, match=r"before it changed\. Nothing was changed\. Drop that database"):
        move(source, address)


def test_a_difference_is_found(server: PostgresServer, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value of one row is enough; no gateway uses that target."""
    address = new_database(server, "different")
    real = Move._compared  # noqa: SLF001 - the moment between copy and comparison

    def compared(self: Move, table: moving.Table, *connections: object) -> Contents:
        if table.name == "heartbeats":
            execute_in(address, "UPDATE heartbeats SET battery_percent = 1.25 WHERE id = 3")
        return real(self, table, *connections)  # type: ignore[arg-type]

    monkeypatch.setattr(Move, "_compared", compared)
    with pytest.raises(StoreError, match=r"The table heartbeats differs: 13 rows .* Drop that database"):
        move(source, address)
    with pytest.raises(StoreError, match="not yet complete"):
        open_existing(address)


def test_a_move_needs_a_source_at_rest(
    server: PostgresServer, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that runs, no registry, no target, a wrong target: each says what to do, and nothing is made."""
    address = new_database(server, "at_rest")
    words = ["migrate", "--data-dir", str(source)]
    with exclusive(source):
        assert main([*words, "--to", address.url]) == 3
    assert main(words) == 2
    assert main([*words, "--to", "mysql://db/x"]) == 2
    assert main(["migrate", "--data-dir", str(tmp_path / "nowhere"), "--to", address.url]) == 4
    told = capsys.readouterr().err
    for said in (
        "Stop it, and run this again",
        "--to postgresql://USER@HOST",
        "it should be postgresql",
        "no registry",
    ):
        assert said in told
    assert execute(server, "SELECT 1 FROM pg_database WHERE datname = %s", "at_rest")
    with closing(PostgresConnection(address)) as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


@pytest.mark.parametrize("dry", [True, False])
def test_a_user_without_a_right_is_told(
    server: PostgresServer, source: Path, capsys: pytest.CaptureFixture[str], *, dry: bool
) -> None:
    """A dry run measures with a temporary table. A move makes tables."""
    name = f"no_right_{dry}".lower()
    new_database(server, name)
    as_guest = server.address(name, "guest").url
    execute(server, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    assert main(["migrate", "--data-dir", str(source), "--to", as_guest, *["--dry-run"][: int(dry)]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "lacks a right: make it the owner of the database and of all tables" in line
    assert "same request" not in line


@pytest.mark.skipif(not may_mount(), reason="mounting a small file system takes root")
def test_a_full_disk_of_the_server_is_told(
    server: PostgresServer, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run needs room for its sample. With room again it ends."""
    words = ["migrate", "--data-dir", str(source), "--dry-run", "--to", server.address("crowded_target").url]
    with small_disk(server.folder / "small_target", kib=32_768) as disk:
        place = disk / "space"
        place.mkdir(mode=0o700)
        for each in (disk, place):
            shutil.chown(each, USER)
        execute(server, f"CREATE TABLESPACE small_target LOCATION '{place}'")
        execute(server, "CREATE DATABASE crowded_target")
        execute(server, "ALTER DATABASE crowded_target SET temp_tablespaces = small_target")
        try:
            with full(disk):
                assert main(words) == 1
                (line,) = capsys.readouterr().err.splitlines()
                assert "The disk of the PostgreSQL server is full: free some space there." in line
            assert main(words) == 0
        finally:
            execute(server, "DROP DATABASE crowded_target")
            execute(server, "DROP TABLESPACE small_target")


@pytest.mark.damages_registry
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_damaged_source_is_told(
    server: PostgresServer, source: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """Its tables cannot be counted."""
    with closing(open_sqlite(source)) as connection:
        roots = connection.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'heartbeats'").fetchall()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with (source / DATABASE_NAME).open("r+b") as file:
        for (root,) in roots:
            file.seek((root - 1) * size)
            file.write(b"\xff" * size)
    address = new_database(server, f"damaged_source_{len(more)}")
    assert main(["migrate", "--data-dir", str(source), "--to", address.url, *more]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not be moved (database disk image is malformed)" in line
    assert "The file is damaged: stop the gateway" in line


def execute_in(address: PostgresAddress, statement: str) -> None:
    """Execute a statement in this database."""
    with closing(PostgresConnection(address)) as connection:
        connection.execute(statement)
