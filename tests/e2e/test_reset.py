"""The main job on real parts: processes, sockets, files, and both brokers."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from device_sim import SimulatedDevice
from tests.e2e.program import run
from tests.e2e.support import AUDITOR, BROKERS, RESET, BrokerKind, Site, details, running, running_site, token_of, topic
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually

both = pytest.mark.parametrize("kind", BROKERS)


async def paired(device: SimulatedDevice, end_user: str = "eu_1") -> tuple[str, str]:
    """Provision a device; its id and token."""
    binding = await device.provision(end_user_id=end_user)
    return binding.device_id, binding.device_token


def _noted_actions(site: Site) -> int:
    """How many resets there are whose session was closed and whose message was cleared."""
    noted = "SELECT count(*) FROM resets WHERE sessions_closed_at IS NOT NULL AND retained_cleared_at IS NOT NULL"
    with closing(sqlite3.connect(f"{(site.gateway.data / 'gateway.db').as_uri()}?mode=ro", uri=True)) as registry:
        return int(registry.execute(noted).fetchone()[0])


@pytest.mark.guarantee("G11")
@both
async def test_a_device_is_registered_bound_and_its_heartbeat_is_seen(tmp_path: Path, kind: BrokerKind) -> None:
    """What a device says over MQTT stands in the answers of the HTTP API, once the broker let it in."""
    async with running_site(tmp_path, kind) as site:
        device = site.device()
        device_id, _ = await paired(device)
        async with running(device):
            await device.wait_for_fact("heartbeat")
            await site.synced()
            shown = await _wait_for_heartbeat(site, device_id)
            said = details(device, "heartbeat")
    assert shown["status"] == "bound"
    assert shown["end_user_id"] == "eu_1"
    assert shown["binding_generation"] == 1
    assert shown["connection"] == "online"
    assert shown["firmware_version"] == said[0]["firmware_version"]
    assert shown["battery_percent"] in [each["battery_percent"] for each in said]


async def _wait_for_heartbeat(site: Site, device_id: str) -> dict[str, object]:
    while (shown := await site.get(device_id))["last_heartbeat_at"] is None:  # noqa: ASYNC110 - an outside client has to poll
        await asyncio.sleep(0.01)
    return shown


@both
async def test_a_device_that_is_online_is_reset(tmp_path: Path, kind: BrokerKind) -> None:
    """Asked, delivered, wiped, executed with a receipt; then the token is dead, and nothing lies on the broker."""
    async with running_site(tmp_path, kind) as site:
        device = site.device()
        device_id, token = await paired(device)
        async with running(device):
            await device.wait_for("online")
            asked = await site.reset(device_id)
            await device.wait_for("unprovisioned")
            command = await site.becomes(device_id, "executed")
        assert command["id"] == asked["id"]
        assert command["result"]["wiped"] == ["device_token", "pairing", "wifi_networks"]
        assert command["error"] is None
        assert command["delivered_at"] <= command["executed_at"]
        assert device.flash.wiped_area == {}
        assert device.counts["reset_begun"] == 1
        await site.token_is_dead(device_id, token)
        await site.broker_agrees()
        certificate = await site.get(f"{device_id}/resets/{command['id']}/certificate")
        assert certificate["claims"]["wiped"] == command["result"]["wiped"]
        assert certificate["claims"]["gateway"]["token_revoked_at"] == command["executed_at"]
        await eventually(lambda: _noted_actions(site), "the gateway noted what it did at the broker")
        assert [kind for kind in await site.events(device_id) if kind not in ("device.online", "device.offline")] == [
            "device.registered",
            "device.bound",
            "device.unbound",
            "reset.requested",
            "reset.delivered",
            "reset.completed",
            "token.revoked",
        ]


@pytest.mark.guarantee("G3")
async def test_the_reset_of_an_offline_device_is_retained(tmp_path: Path) -> None:
    """Mosquitto itself holds the signed command, as `mosquitto_sub -v` prints it, until the device is back."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device(radio="cellular")
        device_id, token = await paired(device)
        async with running(device):
            await device.wait_for("online")
        command = await site.reset(device_id)
        await site.synced()
        line = await _mosquitto_sub(site, topic(device_id))
        print(f"mosquitto_sub -v: {line}")  # noqa: T201 - shown with pytest -rP
        name, _, payload = line.partition(" ")
        assert name == topic(device_id)
        assert f'"id":"{command["id"]}"' in payload
        assert '"binding_generation":1' in payload
        assert command["grant_token"] in payload
        beat = await site.as_device(token, "POST", "heartbeat", {})
        assert [each["id"] for each in beat.json()["commands"]] == [command["id"]]
        async with running(device):
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1
        await site.token_is_dead(device_id, token)
        await site.broker_agrees()
        assert await site.retained() == {}


async def _mosquitto_sub(site: Site, name: str) -> str:
    broker = site.broker
    who = ("-u", AUDITOR, "-P", broker.users[AUDITOR], "-i", AUDITOR, "-V", "mqttv311")
    outcome = await run(
        "mosquitto_sub", "-h", broker.host, "-p", str(broker.port), *who, "-v", "-C", "1", "-W", "20", "-t", name
    )
    assert outcome.code == 0, outcome.err
    return outcome.out.strip()


@pytest.mark.guarantee("G3")
async def test_the_embedded_broker_keeps_the_reset_of_an_offline_device(tmp_path: Path) -> None:
    """With the token that is good for its reset alone the device is handed the command, and obeys it later."""
    async with running_site(tmp_path, "embedded") as site:
        device = site.device(radio="cellular")
        device_id, token = await paired(device)
        async with running(device):
            await device.wait_for("online")
        command = await site.reset(device_id)
        await site.synced()
        async with wire.Wire.open(site.gateway.host, site.gateway.port) as raw:
            assert await raw.connect(device_id, device_id, mqtt_password_of(token)) == wire.ACCEPTED
            await raw.subscribe(topic(device_id))
            message = await raw.read_publish()
        assert message.retain
        assert command["id"].encode() in message.payload
        async with running(device):
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1
        await site.token_is_dead(device_id, token)


@pytest.mark.guarantee("G4")
@both
async def test_a_bluetooth_only_device_waits_until_it_gets_wifi(tmp_path: Path, kind: BrokerKind) -> None:
    """Relayed heartbeats show presence, never carry a command, and leave the reset pending; over WiFi it is wiped."""
    async with running_site(tmp_path, kind) as site:
        device = site.device(radio="ble")
        device_id, token = await paired(device)
        async with running(device):
            await device.wait_for_fact("heartbeat")
            await site.reset(device_id)
            beats = device.counts["heartbeat"]
            await device.wait_for_fact("heartbeat", count=beats + 3)
            assert (await site.newest(device_id))["status"] == "pending"
            state = await site.get(f"{device_id}/state")
            assert (state["connection"], state["last_seen_by"]) == ("online", "ble")
            assert device.binding
            await site.broker_agrees()
            device.give_wifi("Workshop", "correct horse battery staple")
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1
        assert device.flash.wiped_area == {}
        await site.token_is_dead(device_id, token)
        await site.broker_agrees()


@both
async def test_a_device_over_http_alone_is_reset(tmp_path: Path, kind: BrokerKind) -> None:
    """The heartbeat endpoint hands over the reset, and its acknowledgement is taken, without any MQTT session."""
    async with running_site(tmp_path, kind) as site:
        device = site.device(transport="http")
        device_id, token = await paired(device)
        async with running(device):
            await device.wait_for_fact("heartbeat")
            await site.reset(device_id)
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        await site.token_is_dead(device_id, token)
        await site.broker_agrees()


@both
async def test_a_device_that_is_bound_again_is_not_wiped(tmp_path: Path, kind: BrokerKind) -> None:
    """After its reset a device is bound again and works, with a new token and nothing of the old reset left."""
    async with running_site(tmp_path, kind) as site:
        device = site.device()
        device_id, old = await paired(device)
        async with running(device):
            await device.wait_for("online")
            await site.reset(device_id)
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
            _, new = await paired(device, "eu_2")
            beats = device.counts["heartbeat"]
            await device.wait_for_fact("heartbeat", count=beats + 3)
            shown = await site.get(device_id)
        assert new != old
        assert (shown["status"], shown["end_user_id"], shown["binding_generation"]) == ("bound", "eu_2", 3)
        assert token_of(device) == new
        assert device.counts["reset_begun"] == 1
        assert [each["status"] for each in await site.commands(device_id)] == ["executed"]
        await site.token_is_dead(device_id, old)
        await site.broker_agrees()


@both
async def test_a_reset_does_not_affect_other_devices(tmp_path: Path, kind: BrokerKind) -> None:
    """Of three devices online one is wiped; the others keep session, token and binding."""
    async with running_site(tmp_path, kind) as site:
        devices = [site.device(f"SN{number}") for number in range(3)]
        ids = [(await paired(device))[0] for device in devices]
        async with running(*devices):
            for device in devices:
                await device.wait_for("online")
            await site.reset(ids[1])
            await devices[1].wait_for("unprovisioned")
            await site.becomes(ids[1], "executed")
            await site.synced()
            for device in (devices[0], devices[2]):
                beats = device.counts["heartbeat"]
                await device.wait_for_fact("heartbeat", count=beats + 2)
                assert (device.counts["offline"], device.counts["command_received"]) == (0, 0)
        assert [(await site.get(each))["status"] for each in ids] == ["bound", "unbound", "bound"]
        assert [type_of for each in ids for type_of in _types(await site.commands(each))] == [RESET]
        await site.broker_agrees()


def _types(commands: list[dict[str, object]]) -> list[object]:
    return [command["type"] for command in commands]
