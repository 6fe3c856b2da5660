"""The runbook: each of its blocks, as it stands there, against the fault that it is for."""

import json
import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from e2e_program import Outcome, clean_environment, run, script
from e2e_site import BrokerKind, Site, a_site, alive, topic
from support.mosquitto import GATEWAY_PASSWORD
from support.receiver import receiving
from support.snippets import ROOT, Block, run_by
from support.wait import eventually

BLOCKS = run_by("runbook", ROOT / "docs" / "runbook.md")
BROKEN = 2


@dataclass
class Morning:
    """A site, and an operator with a shell who has nothing but the runbook."""

    site: Site
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    async def follow(self, heading: str, number: int = 0) -> Outcome:
        """Run a block of this section; how its last command ended, and all that was said."""
        code = self._here(_of(heading)[number].code)
        said = [await self._do(step) for step in _steps(code)]
        return Outcome(said[-1].code, "".join(each.out for each in said), "".join(each.err for each in said))

    def _here(self, code: str) -> str:
        """What lies at a place of its own in the field lies in the folder of the test."""
        code = code.replace("/var/lib/gateway", str(self.site.gateway.data))
        return code.replace("/backup", str(self.folder / "backup"))

    async def _do(self, step: str) -> Outcome:
        words = step.split()
        if words[:1] != ["systemctl"]:
            return await run("bash", "-c", step, environment=self.environment, folder=self.folder)
        await {"stop": self._stop, "start": self._start}[words[1]](words[2])
        return Outcome(0, "", "")

    async def _stop(self, service: str) -> None:
        assert service == "gateway"
        if self.site.gateway.runs:
            await self.site.gateway.stop()

    async def _start(self, service: str) -> None:
        if service == "mosquitto":
            await self.site.broker.start()
        else:
            await self.site.gateway.restart()
        await self.site.synced()

    @property
    def environment(self) -> dict[str, str]:
        """The gateway's settings in the environment, its programs on the PATH, and what a person knows."""
        line = iter(self.site.gateway.options)
        settings = {
            f"GATEWAY_{name[2:].upper().replace('-', '_')}": value for name, value in zip(line, line, strict=True)
        }
        path = f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}"
        data = str(self.site.gateway.data)
        return clean_environment(**settings, GATEWAY_DATA_DIR=data, PATH=path, **self.variables)


def _of(heading: str) -> list[Block]:
    found = [block for block in BLOCKS if block.heading == heading]
    assert found, f"the runbook has no section {heading!r} with a block"
    return found


def _steps(code: str) -> list[str]:
    """Calls of systemctl apart, since there is no systemd here: the test starts and stops what it names."""
    steps: list[str] = [""]
    for line in code.splitlines(keepends=True):
        if line.startswith("systemctl "):
            steps += [line, ""]
        else:
            steps[-1] += line
    return [step for step in steps if step.strip()]


@asynccontextmanager
async def a_morning(folder: Path, kind: BrokerKind = "mosquitto") -> AsyncIterator[Morning]:
    """A site that is well, as yet, with a backup of an earlier day where the runbook looks for it."""
    async with a_site(folder / "site", kind) as site:
        (folder / "backup").mkdir()
        yield Morning(site, folder)


async def _backup(morning: Morning) -> None:
    outcome = await run(
        script("gateway"), "backup", str(morning.folder / "backup" / "gateway.db"), environment=morning.environment
    )
    assert outcome.code == 0, outcome.err


async def _bound(site: Site, serial: str, user: str = "eu_1") -> dict[str, Any]:
    device = (await site.http.post("/v1/devices", json={"serial_number": serial})).json()
    return await site.post(f"{device['id']}/bind", {"end_user_id": user})


async def _statuses(site: Site, ids: Sequence[str]) -> list[str]:
    return [(await site.newest(each))["status"] for each in ids]


async def test_where_to_begin(tmp_path: Path) -> None:
    """The first block, on an installation that is well."""
    async with a_morning(tmp_path, "embedded") as morning:
        outcome = await morning.follow("Runbook: the worst mornings")
        assert outcome.code < BROKEN, outcome.out


async def test_the_broker_lost_everything(tmp_path: Path) -> None:
    """With an empty store it is made a copy of the registry again: commands, accounts, and nothing else."""
    async with a_morning(tmp_path) as morning:
        site = morning.site
        device = await _bound(site, "SN1")
        await site.reset(device["id"])
        await site.synced()
        await site.broker.kill()
        shutil.rmtree(site.broker.files.persistence_dir)
        site.broker.files.persistence_dir.mkdir()
        outcome = await morning.follow("The broker lost everything")
        assert outcome.code < BROKEN, outcome.out
        await site.broker_agrees()
        assert len(await site.retained()) == 1
        assert await site.connect_answer(device["id"], device["device_token"]) == 0


async def test_the_disk_is_full(tmp_path: Path) -> None:
    """503 while nothing can be written, nothing half done, and it goes on by itself when there is room."""
    async with a_morning(tmp_path, "embedded") as morning:
        site = morning.site
        device = await _bound(site, "SN1")
        before = site.fingerprint()
        wal = site.gateway.data / "gateway.db-wal"
        hard = resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, hard))
        answer = await site.http.post(f"/v1/devices/{device['id']}/reset")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "free space" in answer.json()["error"]["message"]
        assert site.fingerprint() == before
        resource.prlimit(site.gateway.pid, resource.RLIMIT_FSIZE, (hard, hard))
        outcome = await morning.follow("The disk is full")
        assert outcome.code < BROKEN, outcome.out
        await site.reset(device["id"])
        await morning.follow("The disk is full", 1)
        assert await _statuses(site, [device["id"]]) == ["pending"]


async def test_the_registry_is_damaged(tmp_path: Path) -> None:
    """Doctor sees it, the backup serves, and what was asked for since can be read out of the damaged file."""
    async with a_morning(tmp_path, "embedded") as morning:
        site = morning.site
        before, since = await _bound(site, "SN1"), await _bound(site, "SN2")
        for number in range(200):
            await site.http.post("/v1/devices", json={"serial_number": f"more {number}", "metadata": {"x": "y" * 500}})
        await _backup(morning)
        lost = await site.reset(since["id"])
        await site.gateway.stop()
        _damage(site.gateway.data / "gateway.db")
        seen = await run(script("gateway"), "doctor", environment=morning.environment)
        assert seen.code == BROKEN
        assert "registry" in seen.out
        outcome = await morning.follow("The registry is damaged")
        assert outcome.code < BROKEN, outcome.out
        assert (await site.get(before["id"]))["status"] == "bound"
        told = await morning.follow("The registry is damaged", 1)
        assert f"{since['id']}|{lost['id']}|pending" in told.out, told
        assert (await site.reset(since["id"]))["status"] == "pending"


def _damage(registry: Path) -> None:
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


async def test_the_machine_is_lost(tmp_path: Path) -> None:
    """From a backup on an empty data directory: the same id and keys, so the same devices obey."""
    async with a_morning(tmp_path) as morning:
        site = morning.site
        device = site.device("SN1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with alive(device):
            assert (await morning.follow("The machine is lost", 1)).code == 0
            (made,) = (tmp_path / "backup").iterdir()
            made.rename(tmp_path / "backup" / "gateway.db")
            await site.gateway.kill()
            shutil.rmtree(site.gateway.data)
            outcome = await morning.follow("The machine is lost")
            assert outcome.code < BROKEN, outcome.out
            await site.reset(device_id)
            await site.becomes(device_id, "executed")


async def test_an_api_key_leaked(tmp_path: Path) -> None:
    """It opens nothing from then on; what it did is told by its id."""
    async with a_morning(tmp_path, "embedded") as morning:
        site = morning.site
        made = await run(
            script("gateway"), "keys", "create", "--name", "backend", "--json", environment=morning.environment
        )
        stolen = json.loads(made.out)
        thief = {"Authorization": f"Bearer {stolen['key']}"}
        device = await _bound(site, "SN1")
        await site.http.post(f"/v1/devices/{device['id']}/reset", headers=thief)
        assert (await morning.follow("An API key leaked")).code == 0
        assert (await site.http.get("/v1/devices", headers=thief)).status_code == httpx.codes.UNAUTHORIZED
        told = await morning.follow("An API key leaked", 1)
        assert f'"actor": "{stolen["id"]}"' in told.out
        assert device["id"] in told.out.splitlines()[-1]


async def test_the_gateways_password_leaked(tmp_path: Path) -> None:
    """The old one opens nothing; a device whose reset was made to fail is found, and wiped after all."""
    async with a_morning(tmp_path) as morning:
        site = morning.site
        device = site.device("SN1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        command = await site.reset(device_id)
        spoilt = {"command_id": command["id"], "status": "failed", "error": {"code": "grant_invalid", "message": "x"}}
        await site.publish(f"{topic(device_id)}/ack", json.dumps(spoilt).encode())
        await site.becomes(device_id, "failed")
        morning.variables |= {"DEVICE": device_id, "GATEWAY_CONFIG": str(site.gateway.write_settings())}
        outcome = await morning.follow("The gateway's password at the broker leaked")
        assert outcome.code < BROKEN, outcome.out
        assert await site.connect_answer("gateway", GATEWAY_PASSWORD) != 0
        told = await morning.follow("The gateway's password at the broker leaked", 1)
        assert device_id in told.out
        assert "grant_invalid" in told.out
        told = await morning.follow("The gateway's password at the broker leaked", 2)
        assert "was not wiped" in told.err
        async with alive(device):
            await site.becomes(device_id, "executed")


async def test_a_signing_key_leaked(tmp_path: Path) -> None:
    """New bindings get another key; those that know the old one are named, and obey it for their reset."""
    async with a_morning(tmp_path, "embedded") as morning:
        site = morning.site
        device = site.device("SN1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with alive(device):
            assert "still obeyed" in (await morning.follow("A signing key leaked")).out
            assert device_id in (await morning.follow("A signing key leaked", 1)).out
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
        anew = await site.post(f"{device_id}/bind", {"end_user_id": "eu_2"})
        published = (await site.http.get("/.well-known/jwks.json")).json()["keys"]
        assert published == [anew["grant_key"]]


async def test_a_device_was_stolen(tmp_path: Path) -> None:
    """Found by its serial number, reset, and its token opens its reset alone."""
    async with a_morning(tmp_path, "embedded") as morning:
        device = await _bound(morning.site, "BP-000123")
        outcome = await morning.follow("A device was stolen, or its token leaked")
        assert outcome.code == 0, outcome.err
        assert await _statuses(morning.site, [device["id"]]) == ["pending"]
        refused = await morning.site.as_device(device["device_token"], "GET", "commands/pending")
        assert refused.status_code == httpx.codes.UNAUTHORIZED


async def test_a_fleet_was_reset_by_mistake(tmp_path: Path) -> None:
    """Those that were away are held back, at the broker too, and can be bound again; the list says to whom."""
    async with a_morning(tmp_path) as morning:
        site = morning.site
        ids = [(await _bound(site, f"SN{n}", f"eu_{n}"))["id"] for n in range(5)]
        await site.post("bulk/reset", {"device_ids": ids})
        outcome = await morning.follow("A fleet was reset by mistake")
        assert outcome.code == 0, outcome.err
        assert "5 cancelled" in outcome.err
        await site.synced()
        assert await site.retained() == {}
        told = await morning.follow("A fleet was reset by mistake", 1)
        assert all(f"end_user_id=eu_{n}" in told.out for n in range(5))
        await site.post(f"{ids[0]}/bind", {"end_user_id": "eu_0"})


async def test_the_clock_was_wrong(tmp_path: Path) -> None:
    """What expired meanwhile is listed."""
    async with a_morning(tmp_path, "embedded") as morning:
        device = await _bound(morning.site, "SN1")
        await morning.site.post(f"{device['id']}/commands", {"type": "reboot", "ttl_seconds": 1}, status=201)
        await morning.site.becomes(device["id"], "expired")
        outcome = await morning.follow("The clock was wrong")
        assert "command.expired" in outcome.out


async def test_the_gateway_does_not_start(tmp_path: Path) -> None:
    """Settings with their sources, and what doctor finds, also while none runs."""
    async with a_morning(tmp_path, "embedded") as morning:
        await morning.site.gateway.stop()
        outcome = await morning.follow("The gateway does not start")
        assert "GATEWAY_DATA_DIR" in outcome.out
        assert "gateway" in outcome.out


async def test_a_device_is_refused_by_the_broker(tmp_path: Path) -> None:
    """Somebody put yesterday's password file back: the comparison lets the device in again."""
    async with a_morning(tmp_path) as morning:
        site = morning.site
        device = await _bound(site, "SN1")
        morning.variables["DEVICE"] = device["id"]
        kept = site.broker.password_file.read_text().splitlines(keepends=True)
        site.broker.password_file.write_text("".join(line for line in kept if not line.startswith(device["id"])))
        os.kill(site.broker.pid, signal.SIGHUP)
        await eventually(lambda: _refused(site, device), "the broker refuses the device")
        outcome = await morning.follow("A device is refused by the broker, though it is bound")
        assert device["id"] in outcome.out
        await eventually(lambda: _let_in(site, device), "the broker lets the device in")


async def _refused(site: Site, device: dict[str, Any]) -> bool:
    return await site.connect_answer(device["id"], device["device_token"]) != 0


async def _let_in(site: Site, device: dict[str, Any]) -> bool:
    return not await _refused(site, device)


async def test_a_receiver_was_down(tmp_path: Path) -> None:
    """What failed is sent again, each event once, under the id that it has."""
    async with receiving() as receiver, a_morning(tmp_path, "embedded") as morning:
        site = morning.site
        hook = (await site.http.post("/v1/webhooks", json={"url": receiver.url})).json()
        await _bound(site, "SN1")
        await receiver.got(2)
        await site.gateway.stop()
        with closing(sqlite3.connect(site.gateway.data / "gateway.db")) as registry, registry:
            registry.execute("UPDATE deliveries SET status = 'failed', next_attempt_at = NULL")  # as after 8 h
        await site.gateway.restart()
        morning.variables |= {"KEY": site.key, "URL": site.gateway.url, "WEBHOOK": hook["id"]}
        outcome = await morning.follow("A receiver of webhooks was down for days")
        assert outcome.code == 0, outcome.err
        await receiver.got(4)
        ids = [each.headers["webhook-id"] for each in receiver.received]
        assert sorted(ids[:2]) == sorted(ids[2:])


def test_every_block_has_its_morning() -> None:
    """A section of the runbook with a block and without a test of its own would never have been tried."""
    source = Path(__file__).read_text(encoding="utf-8")
    for block in BLOCKS:
        assert f'follow("{block.heading}"' in source, block.place
        number = _of(block.heading).index(block)
        assert f'follow("{block.heading}"{f", {number}" if number else ""})' in source, block.place
