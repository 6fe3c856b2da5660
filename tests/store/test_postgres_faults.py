"""A database that was put back or swapped, and a server that fails: all that was confirmed stays."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from psycopg.types.json import Json

from gateway.app import running
from gateway.bootstrap import first_start
from gateway.cli import main
from gateway.core.addresses import Address
from gateway.core.postgres_address import PostgresAddress
from gateway.errors import GatewayError, StoreError
from gateway.runtime.postgres_server import USER, PostgresServer
from gateway.settings.loading import Settings, load
from gateway.store import (
    DATABASE_NAME,
    Context,
    Store,
    epoch_sql,
    event_sql,
    key_sql,
    lease_sql,
    open_database,
    transact,
)
from gateway.store.errors import PostgresError
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.row_statement import TEXT, Insertion, arrays
from gateway.store.transaction import Tx, View
from tests.support.postgres import execute, new_database
from tests.support.postgres_pair import children
from tests.support.small_disk import full, may_mount, small_disk
from tests.support.wait import eventually


def test_the_registry_of_another_installation_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    """The data directory remembers which registry it was used with; nothing is changed in the other one."""
    own, other = (_settings(tmp_path, new_database(server, name)) for name in ("installation_1", "installation_2"))
    tmp_path.joinpath("data").mkdir()
    first_start(own, to_serve=True)
    first_start(_settings(tmp_path / "elsewhere", other.registry), to_serve=True)
    before = _position(other)
    with pytest.raises(StoreError, match=r"was used with the registry .* Nothing was changed. Name the right database"):
        first_start(other, to_serve=True)
    assert _position(other) == before
    first_start(own, to_serve=True)
    empty = _settings(tmp_path, new_database(server, "installation_3"))
    with pytest.raises(StoreError, match="holds no registry, and the data directory"):
        first_start(empty, to_serve=True)
    (tmp_path / "data" / DATABASE_NAME).touch()
    with pytest.raises(StoreError, match=r"Move that one \('gateway migrate --to URL'\), or begin"):
        first_start(empty, to_serve=True)
    with closing(PostgresConnection(server.address("installation_3"))) as connection:
        assert connection.applied_steps() == set()


def test_a_database_that_was_put_back_begins_a_new_epoch(server: PostgresServer, tmp_path: Path) -> None:
    """A gateway finds that it is behind its own note. One that joins, or comes second, changes nothing."""
    settings = _settings(tmp_path, new_database(server, "put_back"))
    settings.data_dir.mkdir()
    first_start(settings, to_serve=True)
    execute(server, "CREATE DATABASE earlier TEMPLATE put_back")
    with closing(open_database(settings.registry)) as connection:
        transact(connection, Context(), _event)
    first_start(settings, to_serve=True)
    reached = _position(settings)
    joining = _settings(tmp_path / "second machine", settings.registry)
    joining.data_dir.mkdir(parents=True)
    first_start(joining, to_serve=True)
    assert _position(settings) == reached
    execute(server, "DROP DATABASE put_back")
    execute(server, "ALTER DATABASE earlier RENAME TO put_back")
    first_start(settings, to_serve=True)
    begun = _position(settings)
    assert begun.base > reached.base + reached.event_seq
    assert (begun.registry_id, begun.epoch_id == reached.epoch_id) == (reached.registry_id, False)
    first_start(joining, to_serve=True)
    assert _position(settings) == begun
    assert main(["registry", "restored", "--yes", "--database", str(settings.database)]) == 0
    by_hand = _position(settings)
    assert by_hand.base > begun.base
    first_start(joining, to_serve=True)
    assert _position(settings) == by_hand


async def test_a_start_that_fails_leaves_no_registration(server: PostgresServer, tmp_path: Path) -> None:
    """Its port is taken. The next start of this gateway need not wait until the last process counts as dead."""
    settings = _settings(tmp_path, new_database(server, "taken_port"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(GatewayError, match=address):
            async with running(settings.model_copy(update={"mqtt": Address.parse(address)})):
                raise AssertionError("the gateway serves on a port that is taken")
    with closing(open_database(settings.registry)) as connection:
        view = View(connection)
        assert lease_sql.gateways(view) == []
        assert [lease.until for lease in lease_sql.leases(view) if lease.until] == []


async def test_a_database_that_is_put_back_meanwhile_begins_a_new_epoch(server: PostgresServer, tmp_path: Path) -> None:
    """A gateway that runs finds it as well, after the next event that it is told of."""
    settings = _settings(tmp_path, new_database(server, "rewound"))
    async with running(settings) as gateway:
        before = await gateway.store.read(epoch_sql.position)
        assert before is not None
        await gateway.store.write(_event)
        await eventually(lambda: f'"event_seq": {before.event_seq + 1}' in _noted(settings), "the position is noted")
        await gateway.store.write(lambda tx: tx.run("DELETE FROM events"))
        await gateway.store.write(lambda tx: tx.run("UPDATE event_counter SET seq = 0"))

        async def begun() -> bool:
            found = await gateway.store.read(epoch_sql.position)
            return found is not None and found.epoch_id != before.epoch_id

        await eventually(begun, "a new epoch began")


async def test_a_gateway_outlives_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, killed or frozen: 503 with ``Retry-After``, not ready. Afterwards all that was confirmed is there."""
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 1.0)
    with PostgresServer() as server:
        async with running(_settings(tmp_path, server.address())) as gateway:
            _, key = await gateway.store.write(lambda tx: key_sql.create(tx, gateway.registry.project_id, "test"))
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=gateway.http.url, headers=headers, timeout=60) as client:

                async def register(serial: str) -> httpx.Response:
                    return await client.post("/v1/devices", json={"serial_number": serial})

                async def is_ready() -> bool:
                    return (await client.get("/ready")).status_code == 200

                await eventually(is_ready, "it is ready")
                assert (await register("SN-0")).status_code == 201
                for number, fault in enumerate((_stopped, _crashed, _frozen), 1):
                    with fault(server):
                        refused = await register(f"LOST-{number}")
                        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5"), fault
                        ready, health = await client.get("/ready"), await client.get("/health")
                        assert (ready.status_code, health.status_code) == (503, 503)
                        assert "PostgreSQL" in ready.text
                    await eventually(is_ready, "it is ready again")
                    assert (await register(f"SN-{number}")).status_code == 201
                listed = (await client.get("/v1/devices")).json()["data"]
                confirmed = {each["serial_number"] for each in listed if each["serial_number"].startswith("SN-")}
                assert confirmed == {"SN-0", "SN-1", "SN-2", "SN-3"}


async def test_a_gateway_that_is_paused_holds_up_no_other(server: PostgresServer) -> None:
    """It stops between two statements of a write. Another one writes soon, and what the first had begun is undone."""
    address = new_database(server, "shared")
    async with Store(address, Context()) as store:
        with closing(PostgresConnection(address)) as paused:
            paused.begin()
            paused.execute("INSERT INTO meta (key, value) VALUES ('begun', '1')")
            await store.write(lambda tx: key_sql.set_meta(tx, "other", "2"))
            with pytest.raises(PostgresError):
                paused.execute("COMMIT")
        assert await store.read(lambda view: key_sql.meta(view, "begun")) is None


async def test_a_gateway_that_is_paused_in_a_list_holds_up_no_other(server: PostgresServer) -> None:
    """It stops between two rows of one list of statements, where the server may have the first by then."""
    address = new_database(server, "paused_in_a_list")
    goes_on = threading.Event()

    def pause(value: str) -> str:
        goes_on.wait()
        return json.dumps(value)

    with closing(PostgresConnection(address)) as paused:
        async with Store(address, Context()) as store:
            paused.begin()
            rows = (("first", "1"), ("second", "2"), ("third", "3"), ("last", Json("4", dumps=pause)))
            insert = "INSERT INTO meta (key, value) VALUES (?, ?)"
            adding = asyncio.get_running_loop().run_in_executor(None, lambda: paused.executemany(insert, rows))
            try:
                await store.write(lambda tx: key_sql.set_meta(tx, "other", "2"))
            finally:
                goes_on.set()
            with pytest.raises(PostgresError):
                await adding
            assert await store.read(lambda view: key_sql.meta(view, "first")) is None


async def test_a_gateway_that_is_paused_in_an_insertion_holds_up_no_other(server: PostgresServer) -> None:
    """It stops when the server has a part of the message with the rows."""
    address = new_database(server, "paused_in_an_insertion")
    rows = [(f"fact-{number}", "x") for number in range(1_000)]
    facts = Insertion("meta", {"key": TEXT, "value": TEXT})
    message = ";".join((facts.of_all, *arrays(facts, rows))).encode()
    async with Store(address, Context()) as store:
        with closing(_Paused(address)) as paused:
            paused.begin()
            paused.send(b"Q" + struct.pack("!i", len(message) + 5) + message[: len(message) // 2])
            await store.write(lambda tx: tx.run_rows(facts, rows))
        assert await store.read(lambda view: view.value("SELECT count(*) FROM meta WHERE key LIKE 'fact-%'")) == 1_000


class _Paused(PostgresConnection):
    """A connection whose process stops while it sends."""

    def send(self, some: bytes) -> None:
        """Send a part of a message."""
        assert self._raw is not None
        with socket.socket(fileno=os.dup(self._raw.fileno())) as line:
            line.sendall(some)


@pytest.mark.skipif(not may_mount(), reason="mounting a small file system takes root")
async def test_a_full_disk_of_the_server_is_reported(server: PostgresServer) -> None:
    """The write fails with the remedy; with room again it succeeds, on the same connection."""
    with small_disk(server.folder / "small", kib=65_536) as disk:
        place = disk / "space"
        place.mkdir(mode=0o700)
        for each in (disk, place):
            shutil.chown(each, USER)
        execute(server, f"CREATE TABLESPACE small LOCATION '{place}'")
        execute(server, "CREATE DATABASE crowded TABLESPACE small")
        try:
            async with Store(server.address("crowded"), Context()) as store:
                with full(disk), pytest.raises(StoreError, match="disk of the PostgreSQL server is full") as caught:
                    await store.write(_large)
                assert store.trouble == caught.value.message
                await store.write(_large)
                assert store.trouble is None
        finally:
            execute(server, "DROP DATABASE crowded")
            execute(server, "DROP TABLESPACE small")


def _settings(folder: Path, address: PostgresAddress | Path) -> Settings:
    assert isinstance(address, PostgresAddress)
    local = {"data_dir": str(folder / "data"), "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0"}
    return load({**local, "database": address.url}, {}).settings


def _position(settings: Settings) -> epoch_sql.Position:
    with closing(open_database(settings.registry)) as connection:
        found = epoch_sql.position(View(connection))
    assert found is not None
    return found


def _noted(settings: Settings) -> str:
    return (settings.data_dir / "gateway.position").read_text("ascii")


def _event(tx: Tx) -> None:
    event_sql.record_administrative(tx, key_sql.projects(tx)[0].id, "project.created", "cli")


def _large(tx: Tx) -> None:
    for number in range(40):
        tx.run("INSERT INTO meta (key, value) VALUES (?, ?)", f"large {number}", os.urandom(500_000).hex())
    tx.run("DELETE FROM meta WHERE key LIKE 'large %'")


@contextmanager
def _stopped(server: PostgresServer) -> Iterator[None]:
    server.stop()
    yield
    server.start()


@contextmanager
def _crashed(server: PostgresServer) -> Iterator[None]:
    server.stop("immediate")
    yield
    server.start()


@contextmanager
def _frozen(server: PostgresServer) -> Iterator[None]:
    """Stop all processes of the server (SIGSTOP): the kernel goes on to take what is sent to them."""
    pids = [server.pid, *children(server.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
