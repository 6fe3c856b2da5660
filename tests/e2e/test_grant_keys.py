"""A new signing key for bound devices: gateway and device as in the field, on each kind of broker."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_sim import NoFaults, SimulatedDevice
from device_sim.actions import Action
from device_sim.errors import PowerCutError
from device_sim.facts import step
from tests.e2e.program import run, script
from tests.e2e.support import BROKERS, BrokerKind, Site, running, running_site, topic
from tests.support.wait import eventually

SET_GRANT_KEY = "set_grant_key"
KNOWN_BEFORE = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot")
TAKING = ("write:last_sequences", "write:pairing", "write:last_commands", "publish:ack:executed")
DROPPING = ("write:pairing", "write:last_sequences", "write:last_commands", "publish:ack:executed")
LINE = "pattern write devices/%u/commands/set_grant_key/ack\n"


class Cuts(NoFaults):
    """Cuts the power before each of ``steps``, once."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def before(self, action: Action) -> None:
        """Cut it if this step is next on the list."""
        if self.steps and step(action) == self.steps[0]:
            raise PowerCutError(self.steps.pop(0))


async def signing_keys(site: Site, *words: str) -> dict[str, Any]:
    """Run ``gateway signing-keys`` beside the gateway, and return what it prints."""
    outcome = await run(script("gateway"), "signing-keys", *words, "--data-dir", str(site.gateway.data), "--json")
    assert outcome.code == 0, outcome.err
    answer: dict[str, Any] = json.loads(outcome.out)
    return answer


async def rotate(site: Site) -> tuple[str, str]:
    """Make a new key and start its delivery: the ids of the old and the new one."""
    made = await signing_keys(site, "rotate", "--yes")
    await signing_keys(site, "deliver", "--yes")
    return made["retired"], made["kid"]


def held(device: SimulatedDevice) -> list[str]:
    """The ids of the keys that the device obeys, the newest first."""
    assert device.binding
    return [str(key["kid"]) for key in device.binding.grant_keys]


async def obeys_alone(device: SimulatedDevice, kid: str) -> None:
    """Wait until the device obeys this key and no other."""
    await eventually(lambda: held(device) == [kid], f"{device.serial} obeys {kid} alone")


async def is_asked(site: Site, device_id: str) -> None:
    """Wait until the gateway has queued the command for this device."""

    async def asked() -> bool:
        return bool(await site.commands(device_id))

    await eventually(asked, f"{device_id} is asked to take the key")


async def signer_of(site: Site, command: dict[str, Any]) -> str:
    """The key that signed a command."""
    shown = await site.get(f"{command['device_id']}/commands/{command['id']}")
    return str(jwt.get_unverified_header(shown["grant_token"])["kid"])


def signed_by_a_thief(site: Site, kid: str, command: dict[str, Any]) -> bytes:
    """The command as the holder of a copied registry can sign it."""
    with closing(sqlite3.connect(site.gateway.data / "gateway.db")) as registry:
        (seed,) = registry.execute("SELECT private_key FROM signing_keys WHERE kid = ?", [kid]).fetchone()
    body = command["grant_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    grant = jwt.encode(claims, Ed25519PrivateKey.from_private_bytes(seed), algorithm="EdDSA", headers={"kid": kid})
    fields = ("id", "type", "params", "binding_generation", "created_at", "expires_at")
    return json.dumps({**{name: command[name] for name in fields}, "grant_token": grant}).encode()


@contextmanager
def without_the_line(site: Site) -> Iterator[None]:
    """Take the new line out of Mosquitto's access rules, as those of an earlier release are without it."""
    file = site.broker.files.acl
    whole = file.read_text()
    assert LINE in whole
    file.write_text(whole.replace(LINE, ""))
    try:
        yield
    finally:
        file.write_text(whole)


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_device_takes_the_key(tmp_path: Path, kind: BrokerKind) -> None:
    """It obeys the new key alone in the end, with its reset too; the power is cut at each of its writes meanwhile."""
    async with running_site(tmp_path, kind) as site:
        cuts = Cuts()
        device = site.device(faults=cuts)
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            await device.wait_for("online")
            cuts.steps = [*TAKING, *DROPPING]
            old, new = await rotate(site)
            await obeys_alone(device, new)
            await eventually(lambda: not cuts.steps, "the power was cut at each step")

            async def confirmed() -> bool:
                return bool((await signing_keys(site, "progress"))["confirmed"] == 1)

            await eventually(confirmed, "the gateway knows that the device obeys the new key alone")
            keys = (await site.http.get("/.well-known/jwks.json")).json()["keys"]
            assert [key["kid"] for key in keys] == [new]
            reset = await site.reset(device_id)
            assert await signer_of(site, reset) == new != old
            await site.becomes(device_id, "executed")
        await site.broker_agrees()


async def test_the_old_key_signs_nothing_any_more(tmp_path: Path) -> None:
    """Its holder publishes a reset on the broker; the device refuses it, and obeys the one of the gateway."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            await device.wait_for("online")
            waits = await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
            await site.becomes(device_id, "executed")
            old, new = await rotate(site)
            await obeys_alone(device, new)
            forged = {**waits, "type": "factory_reset", "id": "cmd_01ARZ3NDEKTSV4RRFFQ69G5FAV", "expires_at": None}
            await site.publish(topic(device_id), signed_by_a_thief(site, old, forged))
            refused = await device.wait_for_fact("command_refused")
            assert refused.details["code"] == "grant_invalid"
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_reset_and_a_killed_gateway_during_the_change(tmp_path: Path, kind: BrokerKind) -> None:
    """The device is away when it is asked, and the gateway dies; a delivery continues, and a reset takes its place."""
    async with running_site(tmp_path, kind) as site:
        away, resetting = site.device("SN1"), site.device("SN2")
        ids = [(await each.provision(end_user_id="eu_1")).device_id for each in (away, resetting)]
        _, new = await rotate(site)
        for each in ids:
            await is_asked(site, each)
        await site.gateway.kill()
        await site.gateway.restart()
        await site.synced()
        await site.reset(ids[1])
        async with running(away, resetting):
            await obeys_alone(away, new)
            await site.becomes(ids[1], "executed")
        statuses = {each["type"]: each["status"] for each in await site.commands(ids[1])}
        assert statuses == {"factory_reset": "executed", SET_GRANT_KEY: "cancelled"}
        await site.broker_agrees()


@pytest.mark.parametrize("transport", ["mqtt", "http"])
async def test_firmware_without_the_command_keeps_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: Any
) -> None:
    """It says so, keeps its key, and obeys its reset under that key."""
    monkeypatch.setattr("device_sim.grant.COMMAND_TYPES", KNOWN_BEFORE)
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device(transport=transport)
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        old = held(device)[0]
        async with running(device):
            await rotate(site)
            await is_asked(site, device_id)
            command = await site.becomes(device_id, "failed")
            assert (command["type"], command["error"]["code"]) == (SET_GRANT_KEY, "unknown_command")
            assert (await signing_keys(site, "progress"))["kept"] == 1
            reset = await site.reset(device_id)
            assert await signer_of(site, reset) == old
            await site.becomes(device_id, "executed")


async def test_firmware_without_the_subscription_takes_the_key_after_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command stays open, and nothing else changes. Firmware that knows it takes it from the same binding."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        with monkeypatch.context() as older:
            older.setattr("device_sim.grant.COMMAND_TYPES", KNOWN_BEFORE)
            older.setattr("device_sim.wire.COMMAND_TYPES", KNOWN_BEFORE)
            async with running(device):
                await device.wait_for("online")
                _, new = await rotate(site)
                await is_asked(site, device_id)
                done = await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
                assert await signer_of(site, done) == held(device)[0] != new
                await site.becomes(device_id, "executed")
        async with running(device):
            await obeys_alone(device, new)


async def test_earlier_access_rules_delay_the_change(tmp_path: Path) -> None:
    """Mosquitto drops the acknowledgement: the device has both keys, and the old one signs until the line is there."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        with without_the_line(site):
            await site.broker.restart()
            await site.synced()
            async with running(device):
                old, new = await rotate(site)
                await eventually(lambda: held(device) == [new, old], "the device has both keys")
                await device.wait_for_fact("acknowledged", count=2)
                done = await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
                assert await signer_of(site, done) == old
                await site.becomes(device_id, "executed")
                assert held(device) == [new, old]
        await site.broker.restart()
        await site.synced()
        async with running(device):
            await obeys_alone(device, new)


async def test_a_restored_registry_follows_its_device(tmp_path: Path) -> None:
    """The backup has the key and was made before the device took it: a reset is signed again, and obeyed."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        old, new = (await signing_keys(site, "rotate", "--yes"))["retired"], ""
        data, copy = ("--data-dir", str(site.gateway.data)), str(tmp_path / "copy.db")
        assert (await run(script("gateway"), "backup", copy, *data)).code == 0
        async with running(device):
            new = (await signing_keys(site, "deliver", "--yes"))["kid"]
            await obeys_alone(device, new)
        await site.gateway.stop()
        restored = await run(script("gateway"), "restore", copy, "--yes", *data)
        assert restored.code == 0, restored.err
        await site.gateway.restart()
        await site.synced()
        reset = await site.reset(device_id)
        assert await signer_of(site, reset) == old
        async with running(device):
            await site.becomes(device_id, "executed")
        assert await signer_of(site, reset) == new
        assert device.counts["reset_begun"] == 1
