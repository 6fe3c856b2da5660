"""The runbook's sections on leaked secrets, stolen devices and mistaken resets, block by block."""

import json
from contextlib import closing

import httpx

from gateway.store.backup import contents
from gateway.store.sqlite.connection import connect
from tests.e2e.program import run, script
from tests.e2e.runbook_calls import WORKS, bind, command_statuses
from tests.e2e.runbook_session import RunbookSessions
from tests.e2e.support import running, topic
from tests.support.mosquitto import GATEWAY_PASSWORD
from tests.support.receipts import receipt_of
from tests.support.wait import eventually


async def test_section_api_key_leaked(sessions: RunbookSessions) -> None:
    """It opens nothing from then on; what it did is told by its id."""
    async with sessions("embedded") as session:
        site = session.site
        made = await run(
            script("gateway"), "keys", "create", "--name", "backend", "--json", environment=session.environment
        )
        stolen = json.loads(made.out)
        thief = {"Authorization": f"Bearer {stolen['key']}"}
        device = await bind(site, "SN1")
        await site.http.post(f"/v1/devices/{device['id']}/reset", headers=thief)
        with session.recovery("the key opens nothing"):
            assert (await session.follow("An API key leaked")).code == 0
            assert (await site.http.get("/v1/devices", headers=thief)).status_code == httpx.codes.UNAUTHORIZED
        told = await session.follow("An API key leaked", 1)
        assert f"reset.requested  {device['id']}  by backend ({stolen['id']})" in told.out
        assert device["id"] in told.out.splitlines()[-1]
        assert stolen["id"] in (session.folder / "backend.csv").read_text(encoding="utf-8")
        session.variables["DEVICE"] = device["id"]
        told = await session.follow("Who reset this device?")
        assert told.out.count(f"backend ({stolen['id']})") == 3


async def test_evidence_is_stored_before_any_repair(sessions: RunbookSessions) -> None:
    """A forged receipt is in the audit trail that was kept, and so is the registry of that moment."""
    async with sessions() as session:
        site = session.site
        binding = await site.device("SN1").provision(end_user_id="eu_1")
        command = await site.reset(binding.device_id)
        forged = {"command_id": command["id"], "status": "executed", "receipt": "A" * 43}
        await site.publish(f"{topic(binding.device_id)}/ack", json.dumps(forged).encode())

        async def refused() -> bool:
            return "acknowledgement.refused" in await site.events(binding.device_id)

        await eventually(refused, "the forged receipt is in the audit trail")
        assert (await session.follow("Security events: what an attack looks like")).code == 0
        kept = (session.folder / "backup" / "evidence.json").read_text(encoding="utf-8")
        assert "acknowledgement.refused" in kept
        assert contents(session.folder / "backup" / "evidence.db").devices == 1


async def test_section_gateways_password_leaked(sessions: RunbookSessions) -> None:
    """The old one opens nothing; a device whose reset was made to fail is found, and wiped after all."""
    async with sessions() as session:
        site = session.site
        device = site.device("SN1")
        binding = await device.provision(end_user_id="eu_1")
        device_id = binding.device_id
        command = await site.reset(device_id)
        signed = receipt_of(binding.device_token, command, "failed")
        spoilt = {
            "command_id": command["id"],
            "status": "failed",
            "receipt": signed,
            "error": {"code": "grant_invalid", "message": "x"},
        }
        await site.publish(f"{topic(device_id)}/ack", json.dumps(spoilt).encode())
        await site.becomes(device_id, "failed")
        session.variables |= {"DEVICE": device_id, "GATEWAY_CONFIG": str(site.gateway.write_settings())}
        with session.recovery("the old password opens nothing"):
            outcome = await session.follow("The gateway's password at the broker leaked")
            assert outcome.code in WORKS, outcome.out
            assert await site.password_answer("gateway", GATEWAY_PASSWORD) != 0
        told = await session.follow("The gateway's password at the broker leaked", 1)
        assert device_id in told.out
        assert "grant_invalid" in told.out
        with session.recovery("the device is wiped after all"):
            told = await session.follow("The gateway's password at the broker leaked", 2)
            assert "was not wiped" in told.err
            async with running(device):
                await site.becomes(device_id, "executed")


async def test_section_signing_key_leaked(sessions: RunbookSessions) -> None:
    """New bindings get another key; those that know the old one are named, and obey it for their reset."""
    async with sessions("embedded") as session:
        site = session.site
        device = site.device("SN1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            with session.recovery("a device of the old key has obeyed its reset"):
                assert "still obeyed" in (await session.follow("A signing key leaked")).out
                told = await session.follow("A signing key leaked", 1)
                assert (told.code, device_id in told.out) == (0, True), told.err
                await site.reset(device_id)
                await site.becomes(device_id, "executed")
        anew = await site.post(f"{device_id}/bind", {"end_user_id": "eu_2"})
        published = (await site.http.get("/.well-known/jwks.json")).json()["keys"]
        assert published == [anew["grant_key"]]


async def test_section_new_signing_key(sessions: RunbookSessions) -> None:
    """A bound device obeys the new key alone, and the backup that was made in between has that key."""
    async with sessions("embedded") as session:
        site = session.site
        device = site.device("SN1")
        await device.provision(end_user_id="eu_1")
        async with running(device):
            outcome = await session.follow("A new signing key for bound devices")
            assert outcome.code == 0, outcome.err
            with closing(connect(session.folder / "backup" / "after-rotation.db", read_only=True)) as copy:
                (new,) = copy.execute("SELECT kid FROM signing_keys WHERE retired_at IS NULL").fetchone()

            def obeys_new_key_alone() -> bool:
                binding = device.binding
                return binding is not None and [key["kid"] for key in binding.grant_keys] == [new]

            await eventually(obeys_new_key_alone, "the device obeys the new key alone")


async def test_section_device_was_stolen(sessions: RunbookSessions) -> None:
    """Found by its serial number, reset, and its token opens its reset alone."""
    async with sessions("embedded") as session:
        device = await bind(session.site, "BP-000123")
        with session.recovery("its token opens nothing but its reset"):
            outcome = await session.follow("A device was stolen, or its token leaked")
            assert outcome.code == 0, outcome.err
            assert await command_statuses(session.site, [device["id"]]) == ["pending"]
            refused = await session.site.as_device(device["device_token"], "GET", "commands/pending")
            assert refused.status_code == httpx.codes.UNAUTHORIZED


async def test_section_fleet_was_reset_by_mistake(sessions: RunbookSessions) -> None:
    """Those that were away are held back, at the broker too, and can be bound again; the list says to whom."""
    async with sessions() as session:
        site = session.site
        ids = [(await bind(site, f"SN{n}", f"eu_{n}"))["id"] for n in range(5)]
        await site.post("bulk/reset", {"device_ids": ids})
        with session.recovery("no device is told any more"):
            outcome = await session.follow("A fleet was reset by mistake")
            assert outcome.code == 0, outcome.err
            assert "5 cancelled" in outcome.err
            await site.synced()
            assert await site.retained() == {}
        told = await session.follow("A fleet was reset by mistake", 1)
        assert all(f"end_user_id=eu_{n}" in told.out for n in range(5))
        await site.post(f"{ids[0]}/bind", {"end_user_id": "eu_0"})
