"""Two versions on one registry: the one that serves migrates it, after a copy, and no other process does."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import __version__
from gateway.store import DATABASE_NAME
from gateway.store.schema import steps
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import Outcome, run, script, started
from tests.support.wait import eventually

NEWER = (sys.executable, str(Path(__file__).with_name("newer_version.py")))
TOMORROW = "m999_tomorrow"
MIGRATES = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
import newer_version
from gateway.store import schema
from gateway.store.sqlite.connection import connect
print(schema.migrate(connect(pathlib.Path(sys.argv[1]))))
"""


async def _call(method: str, url: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(headers=headers) as http:
        return await http.request(method, url, **more)


async def _newer(gateway: GatewayProcess, *arguments: str) -> Outcome:
    """A command of the newer version, on the data directory."""
    return await run(*NEWER, script("gateway"), *arguments, "--data-dir", str(gateway.data))


def _applied(gateway: GatewayProcess) -> str:
    with closing(sqlite3.connect(gateway.data / DATABASE_NAME)) as registry:
        return str(registry.execute("SELECT max(name) FROM _sqlite_migrations").fetchone()[0])


def _copies(gateway: GatewayProcess) -> list[Path]:
    return sorted(gateway.data.glob(f"{DATABASE_NAME}.m*"))


async def test_a_newer_command_line_does_not_migrate_a_registry_in_use(tmp_path: Path) -> None:
    """It says which version runs and to restart it; it migrates nothing, also not by its own command for that."""
    gateway = GatewayProcess(tmp_path)
    async with started(gateway):
        key = gateway.new_key()
        for command in (
            ("devices", "list"),
            ("keys", "list"),
            ("projects", "list"),
            ("signing-keys", "list"),
            ("keys", "create", "--name", "x"),
        ):
            outcome = await _newer(gateway, *command)
            assert outcome.code == 1, (command, outcome)
            for word in (steps()[-1], TOMORROW, f"gateway {__version__}", str(gateway.pid), "Restart", "upgrading"):
                assert word in outcome.err, (command, word, outcome.err)
        outcome = await _newer(gateway, "migrate-schema")
        assert outcome.code == 3
        assert "Restart it" in outcome.err
        assert _applied(gateway) == steps()[-1]
        answer = await _call("GET", f"{gateway.url}/v1/devices", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
        assert await gateway.stop() == 0
    assert _copies(gateway) == []


async def test_a_starting_gateway_migrates_after_a_copy(tmp_path: Path) -> None:
    """The log names both schemas and the copy; the older version then refuses, and runs on the copy put back."""
    gateway = GatewayProcess(tmp_path)
    async with started(gateway):
        key = gateway.new_key()
        await gateway.stop()
    newer = GatewayProcess(tmp_path, by=NEWER)
    async with started(newer):
        (told,) = newer.logged("store.migrated")
        assert (told["from_schema"], told["to_schema"]) == (steps()[-1], TOMORROW)
        (copy,) = _copies(newer)
        assert told["copy"] == str(copy)
        assert copy.stat().st_mode & 0o777 == 0o600
        headers = {"Authorization": f"Bearer {key}"}
        made = await _call("POST", f"{newer.url}/v1/devices", headers=headers, json={"serial_number": "SN-1"})
        assert made.status_code == 201
        older = await run(script("gateway"), "devices", "list", "--data-dir", str(gateway.data))
        assert older.code == 1
        assert f"{TOMORROW}" in older.err
        assert f"process {newer.pid}" in older.err
        await newer.stop()
    refused = await run(script("gateway"), "serve", "--data-dir", str(gateway.data))
    assert refused.code == 1
    assert f"written by a newer gateway (it has {TOMORROW})" in refused.err
    back = await run(script("gateway"), "restore", str(copy), "--yes", "--data-dir", str(gateway.data))
    assert back.code == 0, back.err
    async with started(gateway):
        answer = await _call("GET", f"{gateway.url}/v1/devices", headers=headers)
        assert (answer.status_code, answer.json()["data"]) == (200, [])
        await gateway.stop()


async def test_a_gateway_reports_a_registry_migrated_at_run_time(tmp_path: Path) -> None:
    """By a program that ignores the lock: log, /ready and doctor report it, and no more is written or acknowledged."""
    gateway = GatewayProcess(tmp_path)
    async with started(gateway):
        headers = {"Authorization": f"Bearer {gateway.new_key()}"}
        migrated = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", MIGRATES, str(gateway.data / DATABASE_NAME), str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert migrated.stdout == f"['{TOMORROW}']\n"
        await eventually(lambda: gateway.logged("store.schema_too_new"), "the log says so")
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
            ready = await http.get("/ready")
            assert ready.status_code == 503
            assert TOMORROW in ready.json()["registry"]["error"]
            answer = await http.post("/v1/devices", json={"serial_number": "SN-1"})
            assert answer.status_code == 503
            assert "Restart the gateway with the newer version" in answer.json()["error"]["message"]
        examined = await run(script("gateway"), "doctor", "--json", "--data-dir", str(gateway.data))
        findings = {f"{each['area']}: {each['name']}": each for each in json.loads(examined.out)["findings"]}
        assert TOMORROW in findings["registry: schema"]["says"]
        assert findings["gateway: ready"]["level"] == "error"
        assert any(TOMORROW in each for each in findings["gateway: ready"]["details"])
        assert len(gateway.logged("store.schema_too_new")) == 1
        assert await gateway.stop() == 0
    with closing(sqlite3.connect(gateway.data / DATABASE_NAME)) as registry:
        assert registry.execute("SELECT count(*) FROM devices").fetchone()[0] == 0


@pytest.mark.parametrize("option", ["--copy", "--no-copy"])
async def test_a_command_migrates_while_no_gateway_runs(tmp_path: Path, option: str) -> None:
    """The command says from, to, and where the copy lies; a second time there is nothing to do."""
    gateway = GatewayProcess(tmp_path)
    async with started(gateway):
        await gateway.stop()
    first, again = [await _newer(gateway, "migrate-schema", option, "--json") for _ in range(2)]
    copies = _copies(gateway)
    assert len(copies) == (option == "--copy")
    copy = str(copies[0]) if copies else None
    assert json.loads(first.out) == {"from": steps()[-1], "to": TOMORROW, "copy": copy}
    assert json.loads(again.out) == {"from": TOMORROW, "to": TOMORROW, "copy": None}
