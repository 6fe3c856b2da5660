"""A database user that lacks a right: a line with the remedy, 503 from a gateway, and no message is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from gateway.app import running
from gateway.cli import main
from gateway.core.postgres_address import PostgresAddress
from gateway.errors import StoreError
from gateway.running import Running
from gateway.runtime.postgres_server import PostgresServer
from gateway.settings.loading import load
from gateway.store import Context, Store, key_sql, open_database
from gateway.store.postgres.steps import STEP_TABLE
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.postgres import execute, new_database
from tests.support.registry_commands import READS
from tests.support.wait import eventually

LACKS = "The database user of the setting 'database' lacks a right: make it the owner of the database and of all tables"
ALL_TABLES = "ALL TABLES IN SCHEMA public"


def within(address: PostgresAddress, *statements: str) -> None:
    """Execute statements in this database as the administrator of the server."""
    with psycopg.connect(address.url, autocommit=True) as connection:
        for each in statements:
            connection.execute(each.encode())


def registry_of_another(server: PostgresServer, name: str, *grants: str) -> PostgresAddress:
    """The address of a registry whose tables are the administrator's, for a user with these rights."""
    own = new_database(server, name)
    open_database(own).close()
    within(own, *(f"GRANT {each} TO guest" for each in grants))
    return server.address(name, "guest")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command and its line on stderr."""
    capsys.readouterr()
    code = main(words)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    return code, line


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logging of a command leaves that of the tests alone."""
    monkeypatch.setattr("gateway.runtime.log.configure", lambda *_, **__: None)


@pytest.mark.usefixtures("_quiet")
def test_a_user_that_may_only_read_is_told(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that read work. One that writes, and the start of a gateway, name the right that is lacking."""
    guest = registry_of_another(server, "only_read", f"SELECT ON {ALL_TABLES}")
    where = _where(tmp_path, guest)
    assert main(["keys", "list", *where]) == 0
    assert main(["cluster", *where]) == 0
    ports = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
    for words in (("keys", "create", "--name", "x"), ("serve", *ports), ("registry", "recount")):
        code, line = said(capsys, *words, *where)
        assert (code, LACKS in line, "Nothing was changed" in line) == (1, True, True), line
        assert "same request" not in line
    within(server.address(guest.database), f"GRANT INSERT, UPDATE, DELETE ON {ALL_TABLES} TO guest")
    assert main(["registry", "recount", *where]) == 0


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "words",
    READS,
)
def test_a_command_that_may_not_read_is_told(
    server: PostgresServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
) -> None:
    """It may see which steps were applied, so the registry opens; then its first statement is refused."""
    name = f"unreadable_{words.replace(' ', '_').replace('-', '_')}"
    guest = registry_of_another(server, name, f"SELECT ON {STEP_TABLE}")
    monkeypatch.setenv("GATEWAY_DATABASE", guest.url)
    code, line = said(capsys, *words.split(), "--data-dir", str(tmp_path))
    assert (code, LACKS in line, "same request" in line) == (1, True, False), line


async def test_a_schema_that_may_not_be_used_is_named(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tables count as missing, for a store that is open. The user may have its right again meanwhile."""
    guest = registry_of_another(
        server, "closed_schema", f"ALL ON {ALL_TABLES}", "ALL ON ALL SEQUENCES IN SCHEMA public"
    )
    own = server.address(guest.database)
    async with Store(guest, Context()) as store:
        within(own, "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(StoreError, match="grant it USAGE on that schema") as caught:
            await store.write(lambda tx: key_sql.set_meta(tx, "meanwhile", "1"))
        assert store.trouble == caught.value.message
        for words in (("keys", "list"), ("cluster",), ("keys", "create", "--name", "x")):
            code, line = said(capsys, *words, *_where(tmp_path, guest))
            assert (code, "grant it USAGE on that schema" in line) == (1, True), line
        within(own, "GRANT USAGE ON SCHEMA public TO guest")
        await store.write(lambda tx: key_sql.set_meta(tx, "after", "1"))
        assert store.trouble is None


async def test_a_gateway_that_loses_its_rights_goes_on_when_it_has_them_again(
    server: PostgresServer, tmp_path: Path
) -> None:
    """Writes get 503 with the remedy, and a message gets no PUBACK: it is stored first, when that is allowed again."""
    execute(server, "CREATE DATABASE bereft OWNER guest")
    guest = server.address("bereft", "guest")
    own = server.address("bereft")
    local = {"data_dir": str(tmp_path / "data"), "http": "127.0.0.1:0", "mqtt": "127.0.0.1:0"}
    async with running(load({**local, "database": guest.url}, {}).settings) as gateway, _client(gateway) as client:
        device = (await client.post("/v1/devices", json={"serial_number": "SN-1"})).json()["id"]
        bound = (await client.post(f"/v1/devices/{device}/bind", json={"end_user_id": "eu_1"})).json()
        async with _connected(bound) as connected:
            within(own, f"REVOKE INSERT, UPDATE, DELETE ON {ALL_TABLES} FROM guest")
            said = asyncio.create_task(connected.publish(f"devices/{device}/heartbeat", b'{"battery_percent": 50}'))
            await eventually(lambda: gateway.store.trouble, "a write fails")
            refused = await client.post("/v1/devices", json={"serial_number": "SN-2"})
            assert (refused.status_code, refused.headers.get("retry-after")) == (503, "5"), refused.text
            assert LACKS in refused.json()["error"]["message"]
            ready = await client.get("/ready")
            assert (ready.status_code, LACKS in ready.text) == (503, True), ready.text
            assert (await client.get("/v1/devices")).status_code == 200
            assert not said.done()
            within(own, f"GRANT INSERT, UPDATE, DELETE ON {ALL_TABLES} TO guest")
            await said
        assert await gateway.store.read(lambda view: view.value("SELECT count(*) FROM heartbeats")) == 1

        async def is_accepted() -> bool:
            return (await client.post("/v1/devices", json={"serial_number": "SN-2"})).status_code == 201

        await eventually(is_accepted, "writes are accepted again")


def _where(folder: Path, database: PostgresAddress) -> tuple[str, ...]:
    """The options of a command that lead to this registry."""
    return "--data-dir", str(folder / "data"), "--database", database.url


@asynccontextmanager
async def _client(gateway: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an API key."""
    _, key = await gateway.store.write(lambda tx: key_sql.create(tx, gateway.registry.project_id, "test"))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.http.url, headers=headers, timeout=60) as client:
        yield client


@asynccontextmanager
async def _connected(bound: dict[str, Any]) -> AsyncIterator[wire.Wire]:
    """A device at the broker, by what its bind has told."""
    mqtt, device = bound["mqtt"], bound["mqtt"]["username"]
    async with wire.Wire.open(mqtt["host"], mqtt["port"]) as connected:
        password = mqtt_password_of(bound["device_token"])
        assert await connected.connect(device, device, password) == wire.ACCEPTED
        yield connected
