"""The runbook: each of its blocks, as it stands there, against the fault that it is for."""

import os
import resource
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.program import run, script
from tests.e2e.runbook_calls import BROKEN, WORKS, bind, command_statuses, take_backup
from tests.e2e.runbook_session import BLOCKS, RunbookSessions, blocks_of
from tests.e2e.support import Site, running
from tests.support.receiver import receiving
from tests.support.wait import eventually


async def test_section_where_to_start(sessions: RunbookSessions) -> None:
    """The first block, on an installation that is well."""
    async with sessions("embedded") as session:
        outcome = await session.follow("Runbook: the worst mornings")
        assert outcome.code in WORKS, outcome.out


async def test_section_broker_lost_everything(sessions: RunbookSessions) -> None:
    """With an empty store it is made a copy of the registry again: commands, accounts, and nothing else."""
    async with sessions() as session:
        site = session.site
        device = await bind(site, "SN1")
        await site.reset(device["id"])
        await site.synced()
        await site.broker.kill()
        shutil.rmtree(site.broker.files.persistence_dir)
        site.broker.files.persistence_dir.mkdir()
        with session.recovery("devices get in and find their commands"):
            outcome = await session.follow("The broker lost everything")
            assert outcome.code in WORKS, outcome.out
            await site.broker_agrees()
            assert len(await site.retained()) == 1
            assert await site.connect_answer(device["id"], device["device_token"]) == 0


async def test_section_disk_is_full(sessions: RunbookSessions) -> None:
    """503 while nothing can be written, nothing half done, and it goes on by itself when there is room."""
    async with sessions("embedded") as session:
        site = session.site
        device = await bind(site, "SN1")
        before = site.fingerprint()
        wal = site.gateway.data / "gateway.db-wal"
        hard = resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
        answer = await site.http.post(f"/v1/devices/{device['id']}/reset")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "free space" in answer.json()["error"]["message"]
        assert site.fingerprint() == before
        with session.recovery("a reset is accepted"):
            resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, (hard, hard))
            outcome = await session.follow("The disk is full")
            assert outcome.code in WORKS, outcome.out
            await site.reset(device["id"])
        await session.follow("The disk is full", 1)
        assert await command_statuses(site, [device["id"]]) == ["pending"]


async def test_section_registry_is_damaged(sessions: RunbookSessions) -> None:
    """Doctor sees it, the backup serves, and what was asked for since can be read out of the damaged file."""
    async with sessions("embedded") as session:
        site = session.site
        before, since = await bind(site, "SN1"), await bind(site, "SN2")
        for number in range(200):
            await site.http.post("/v1/devices", json={"serial_number": f"more {number}", "metadata": {"x": "y" * 500}})
        await take_backup(session)
        lost = await site.reset(since["id"])
        await site.gateway.stop()
        damage(site.gateway.data / "gateway.db")
        seen = await run(script("gateway"), "doctor", environment=session.environment)
        assert seen.code == BROKEN
        assert "registry" in seen.out
        with session.recovery("the registry of the backup is served"):
            outcome = await session.follow("The registry is damaged")
            assert outcome.code in WORKS, outcome.out
            assert (await site.get(before["id"]))["status"] == "bound"
        told = await session.follow("The registry is damaged", 1)
        assert f"{since['id']}|{lost['id']}|pending" in told.out, told
        assert (await site.reset(since["id"]))["status"] == "pending"


def damage(registry: Path) -> None:
    """Overwrite a page in the middle that belongs to the devices' table."""
    with closing(sqlite3.connect(registry)) as connection:
        page: int = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = 'devices' AND pagetype = 'leaf' ORDER BY pageno DESC LIMIT 1"
        ).fetchone()[0]
        size: int = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with registry.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


async def test_section_registry_was_copied_back(sessions: RunbookSessions) -> None:
    """The gateway finds it, begins a new epoch and says so; the runbook's commands show who is bound."""
    async with sessions() as session:
        site = session.site
        before = await bind(site, "SN1")
        await take_backup(session)
        await bind(site, "SN2")
        await site.gateway.stop()
        for side in ("-wal", "-shm"):
            (site.gateway.data / f"gateway.db{side}").unlink(missing_ok=True)
        shutil.copyfile(session.folder / "backup" / "gateway.db", site.gateway.data / "gateway.db")
        with session.recovery("a device is bound in the new epoch"):
            await site.gateway.restart()
            await site.synced()
            assert len(site.gateway.logged("registry.put_back")) == 1
            outcome = await session.follow("The registry was copied back by hand")
            assert "the registry was put back by hand" in outcome.out
            assert before["id"] in outcome.out
            assert (await bind(site, "SN2"))["binding_generation"] > 1 << 20
        await site.broker_agrees()


async def test_section_machine_is_lost(sessions: RunbookSessions) -> None:
    """From a backup on an empty data directory: the same id and keys, so the same devices obey."""
    async with sessions() as session:
        site = session.site
        device = site.device("SN1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            assert (await session.follow("The machine is lost", 1)).code == 0
            (made,) = (session.folder / "backup").iterdir()
            made.rename(session.folder / "backup" / "gateway.db")
            await site.gateway.kill()
            shutil.rmtree(site.gateway.data)
            with session.recovery("a device has obeyed a reset"):
                outcome = await session.follow("The machine is lost")
                assert outcome.code in WORKS, outcome.out
                await site.reset(device_id)
                await site.becomes(device_id, "executed")


async def test_section_clock_was_wrong(sessions: RunbookSessions) -> None:
    """What expired meanwhile is listed."""
    async with sessions("embedded") as session:
        device = await bind(session.site, "SN1")
        await session.site.post(f"{device['id']}/commands", {"type": "reboot", "ttl_seconds": 1}, status=201)
        await session.site.becomes(device["id"], "expired")
        with session.recovery("it is known what expired"):
            outcome = await session.follow("The clock was wrong")
            assert "command.expired" in outcome.out


async def test_section_gateway_does_not_start(sessions: RunbookSessions) -> None:
    """Settings with their sources, and what doctor finds, also while none runs."""
    async with sessions("embedded") as session:
        await session.site.gateway.stop()
        outcome = await session.follow("The gateway does not start")
        assert "GATEWAY_DATA_DIR" in outcome.out
        assert "gateway" in outcome.out


async def test_section_device_is_refused_by_the_broker(sessions: RunbookSessions) -> None:
    """An operator restored yesterday's password file: the comparison admits the device again."""
    async with sessions() as session:
        site = session.site
        device = await bind(site, "SN1")
        session.variables["DEVICE"] = device["id"]
        kept = site.broker.password_file.read_text().splitlines(keepends=True)
        site.broker.password_file.write_text("".join(line for line in kept if not line.startswith(device["id"])))
        os.kill(site.broker.pid, signal.SIGHUP)
        await eventually(lambda: _refused(site, device), "the broker refuses the device")
        with session.recovery("the broker lets the device in"):
            outcome = await session.follow("A device is refused by the broker, though it is bound")
            assert device["id"] in outcome.out
            await eventually(lambda: _is_accepted(site, device), "the broker lets the device in")


async def _refused(site: Site, device: dict[str, Any]) -> bool:
    return await site.connect_answer(device["id"], device["device_token"]) != 0


async def _is_accepted(site: Site, device: dict[str, Any]) -> bool:
    return not await _refused(site, device)


async def test_section_receiver_was_down(sessions: RunbookSessions) -> None:
    """What failed is sent again, each event once, under the id that it has."""
    async with receiving() as receiver, sessions("embedded", "--webhook-allow-loopback") as session:
        site = session.site
        hook = (await site.http.post("/v1/webhooks", json={"url": receiver.url})).json()
        await bind(site, "SN1")
        await receiver.got(2)
        await site.gateway.stop()
        with closing(sqlite3.connect(site.gateway.data / "gateway.db")) as registry, registry:
            registry.execute("UPDATE deliveries SET status = 'failed', next_attempt_at = NULL")  # as after 8 h
        await site.gateway.restart()
        session.variables |= {"KEY": site.key, "URL": site.gateway.url, "WEBHOOK": hook["id"]}
        with session.recovery("the receiver has what it missed"):
            outcome = await session.follow("A receiver of webhooks was down for days")
            assert outcome.code == 0, outcome.err
            await receiver.got(4)
        ids = [each.headers["webhook-id"] for each in receiver.received]
        assert sorted(ids[:2]) == sorted(ids[2:])


def test_every_block_of_the_runbook_has_a_test() -> None:
    """A section of the runbook with a block and without a test of its own would never have been tried."""
    source = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_runbook*.py"))
    for block in BLOCKS:
        assert f'follow("{block.heading}"' in source, block.place
        number = blocks_of(block.heading).index(block)
        assert f'follow("{block.heading}"{f", {number}" if number else ""})' in source, block.place
