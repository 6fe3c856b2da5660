"""One fault at a time on real parts: a clear word in answers, /ready and the log, nothing lost, well by itself."""

import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from device_sim import SimulatedDevice
from gateway.store import DATABASE_NAME
from tests.e2e.program import run, script
from tests.e2e.support import Site, running, running_site
from tests.support.wait import eventually

IS_ROOT = os.geteuid() == 0
DISK_KIB = 4_096
WAL_HEADER = 32
_WITHOUT_RIGHTS = "user gateway\ntopic read #\n\n"


@contextmanager
def a_small_disk(where: Path) -> Iterator[None]:
    """A file system of two megabytes, where mounting one is allowed; else a directory like any other."""
    where.mkdir(parents=True)
    if not IS_ROOT:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k,mode=700", "none", str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def make_read_only(where: Path) -> None:
    """As a file system is after an error; permissions would not keep root from anything."""
    if IS_ROOT:
        subprocess.run(["mount", "-o", "remount,ro", str(where)], check=True)
    else:
        where.chmod(0o500)


@contextmanager
def fill_to_the_end(site: Site) -> Iterator[tuple[str, ...]]:
    """The disk is full, or no file of the gateway may grow any more; what it says about that."""
    if IS_ROOT:
        fill(site.gateway.data)
        yield "disk is full", "free some space"
        (site.gateway.data / "filler").unlink()
        return
    largest = max(file.stat().st_size for file in site.gateway.data.iterdir())
    before = resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, (largest, before[1]))
    yield ("free space",)
    resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def running_device(site: Site) -> AsyncIterator[tuple[SimulatedDevice, str]]:
    """One that is bound, and sends heartbeats all the time; its id."""
    device = site.device()
    device_id = (await device.provision(end_user_id="eu_1")).device_id
    async with running(device):
        await eventually(lambda: site.count("SELECT count(*) FROM heartbeats"), "a heartbeat is stored")
        yield device, device_id


async def is_refused_clearly(site: Site, device_id: str, *words: str) -> None:
    """A reset is answered with 503, when to ask again, and what to do; and nothing has changed."""
    before = site.count("SELECT max(seq) FROM events")
    answer = await site.http.post(f"/v1/devices/{device_id}/reset", timeout=30.0)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
    error = answer.json()["error"]
    assert error["code"] == "service_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    for word in ("Nothing was changed", *words):
        assert word in error["message"], error["message"]
    assert site.count("SELECT max(seq) FROM events") == before
    assert (await site.get(device_id))["status"] == "bound"


async def unready(site: Site, part: str, *words: str) -> None:
    """/ready says 503, which part is to blame and what to do, while /health goes on."""

    async def told() -> dict[str, Any] | None:
        answer = await site.http.get("/ready")
        body: dict[str, Any] = answer.json()
        return body if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and body[part]["error"] else None

    body = await eventually(told, f"/ready tells of {part}", guard_seconds=40.0)
    assert body
    for word in words:
        assert word in body[part]["error"], body
    assert (await site.http.get("/health")).status_code == httpx.codes.OK


async def assert_recovered(site: Site, device: SimulatedDevice, device_id: str) -> None:
    """Without a restart: ready, every heartbeat stored that the broker took, and a reset is carried out."""
    process = site.gateway.pid
    await site.synced()
    taken = device.counts["heartbeat"]
    await eventually(lambda: site.count("SELECT count(*) FROM heartbeats") >= taken, f"all {taken} are stored")
    await site.reset(device_id)
    await device.wait_for("unprovisioned")
    await site.becomes(device_id, "executed")
    await site.broker_agrees()
    assert site.gateway.pid == process
    assert site.gateway.runs
    assert site.count("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'") == 0


def fill(where: Path) -> None:
    """Take all the room that is left."""
    with (where / "filler").open("wb", buffering=0) as filler:
        for size in (65_536, 4_096, 512):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                continue


async def test_the_gateway_recovers_from_a_full_disk(tmp_path: Path) -> None:
    """Writes are refused with what to do; the log says it once; with room again all that was said is stored."""
    with a_small_disk(tmp_path / "gateway" / "data"):
        async with running_site(tmp_path, "mosquitto") as site, running_device(site) as (device, device_id):
            with fill_to_the_end(site) as words:
                await unready(site, "registry", *words)
                await is_refused_clearly(site, device_id, *words)
                await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 10)
                assert len(site.gateway.logged("store.failing")) == 1
            await assert_recovered(site, device, device_id)
            assert len(site.gateway.logged("store.recovered")) == 1
            assert await site.gateway.stop() == 0


async def test_a_read_only_data_directory_is_reported(tmp_path: Path) -> None:
    """A gateway on it does not start, says which directory, and what to do."""
    data = tmp_path / "data"
    with a_small_disk(data):
        made = await run(script("gateway"), "keys", "create", "--name", "e2e", "--data-dir", str(data))
        assert made.code == 0, made.err
        make_read_only(data)
        refused = await run(script("gateway"), "serve", "--data-dir", str(data), "--http", "127.0.0.1:0")
        assert refused.code == 1
        assert "Traceback" not in refused.err
        assert str(data) in refused.err
        assert "Make it writable" in refused.err


async def test_the_gateway_recovers_from_a_locked_registry(tmp_path: Path) -> None:
    """A backup tool that hangs, say: waited for, then said; and well again as soon as it lets go."""
    async with running_site(tmp_path, "mosquitto") as site, running_device(site) as (device, device_id):
        with closing(sqlite3.connect(site.gateway.data / DATABASE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await is_refused_clearly(site, device_id, "locked", "Another program")
            await unready(site, "registry", "Another program")
            other.execute("ROLLBACK")
        await assert_recovered(site, device, device_id)


@pytest.mark.parametrize("how", ["torn", "flipped"])
async def test_a_damaged_end_of_the_wal_loses_nothing_else(tmp_path: Path, how: str) -> None:
    """A power cut tears the last write: the gateway starts, and both sides agree on what is left."""
    async with running_site(tmp_path, "mosquitto") as site:
        async with running_device(site) as (_, device_id):
            pass
        command = await site.reset(device_id)
        await site.synced()
        await site.gateway.kill()
        corrupt(site.gateway.data / f"{DATABASE_NAME}-wal", how)
        await site.gateway.restart()
        await site.broker_agrees()
        assert site.count("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'") == 0
        listed = [each["id"] for each in await site.commands(device_id)]
        assert listed == [command["id"]] or how == "flipped"


def corrupt(wal: Path, how: str) -> None:
    """Half a frame behind the last one, or a last one that is not what was written."""
    content = wal.read_bytes()
    assert len(content) > WAL_HEADER
    wal.write_bytes(content + content[-2_000:] if how == "torn" else content[:-64] + bytes(64))


@pytest.mark.damages_registry
async def test_a_registry_damaged_at_run_time_is_reported(tmp_path: Path) -> None:
    """What can be read is served, what cannot says to restore a backup; nothing is acknowledged that is not stored."""
    async with running_site(tmp_path, "mosquitto") as site, running_device(site) as (device, device_id):
        await site.gateway.kill()
        damage_table(site.gateway.data / DATABASE_NAME, "heartbeats")
        await site.gateway.restart()
        await device.wait_for_fact("heartbeat", count=device.counts["heartbeat"] + 2)
        answer = await site.http.get(f"/v1/devices/{device_id}/heartbeats")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "gateway restore" in answer.json()["error"]["message"]
        await unready(site, "registry", "gateway restore")
        assert (await site.get(device_id))["status"] == "bound"
        assert await site.gateway.stop() == 0
        assert "Traceback" not in site.gateway.err


def damage_table(file: Path, table: str) -> None:
    """Overwrite the root page of a table, as a bad disk does."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [root] = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        [size] = database.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as raw:
        raw.seek((root - 1) * size)
        raw.write(b"\xa5" * size)


async def test_the_gateway_recovers_from_refused_publishes(tmp_path: Path) -> None:
    """Without its rights a reset is accepted, and /ready names the missing ones; with them the reset goes out."""
    async with running_site(tmp_path, "mosquitto") as site, running_device(site) as (device, device_id):
        rights = site.broker.files.acl.read_text()
        site.broker.files.acl.write_text(_WITHOUT_RIGHTS + rights.replace("user gateway\n", "user nobody\n"))
        os.kill(site.broker.pid, signal.SIGHUP)
        command = await site.reset(device_id)
        await unready(site, "broker", "refused", "right to write")
        site.broker.files.acl.write_text(rights)
        os.kill(site.broker.pid, signal.SIGHUP)
        await device.wait_for("unprovisioned")
        assert (await site.becomes(device_id, "executed"))["id"] == command["id"]
        await site.broker_agrees()


async def test_the_gateway_recovers_from_a_hanging_broker(tmp_path: Path) -> None:
    """It keeps its connections and answers nothing: resets are taken all the same, and go when it answers again."""
    short = "--mqtt-keepalive-seconds", "5"
    async with running_site(tmp_path, "mosquitto", *short) as site, running_device(site) as (device, device_id):
        os.kill(site.broker.pid, signal.SIGSTOP)
        try:
            command = await site.reset(device_id)
            await unready(site, "broker")
        finally:
            os.kill(site.broker.pid, signal.SIGCONT)
        await device.wait_for("unprovisioned")
        assert (await site.becomes(device_id, "executed"))["id"] == command["id"]
        await site.broker_agrees()
