"""Links over HTTP: the companion app of a BLE-only device, and a device that speaks HTTP itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_sim import Options
from device_sim.actions import Publish
from device_sim.errors import RadioError
from device_sim.relay import BleRelay
from tests.device_sim.stage import QUICK, Stage, a_stage, alive, occurrences
from tests.device_sim.support import GUARD_SECONDS

HTTP: Options = replace(QUICK, transport="http")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage of the test's own."""
    async with a_stage(tmp_path) as stage:
        yield stage


async def test_ble_is_relayed(stage: Stage) -> None:
    """The app relays the heartbeats of a BLE-only device, which never connects to the broker nor gets a command."""
    device = stage.device(radio="ble")
    async with alive(device):
        await stage.door.until(lambda: len(stage.door.relayed) >= 3)
        await stage.command(device, "factory_reset")
        seen = len(stage.door.relayed)
        await stage.door.until(lambda: len(stage.door.relayed) >= seen + 3)
    assert stage.door.relayed[0]["connection_type"] == ["ble"]
    assert stage.door.acks == []
    assert "command_received" not in device.counts
    assert "as dev_" not in stage.broker.log.read_text()


async def test_ble_gets_wifi(stage: Stage) -> None:
    """Given a network, the device comes up over MQTT, finds the reset that waited, and is wiped."""
    device = stage.device(radio="ble")
    async with alive(device):
        await stage.door.until(lambda: bool(stage.door.relayed))
        await stage.command(device, "factory_reset")
        device.give_wifi("home", "secret")
        await device.wait_for("unprovisioned")
    assert occurrences(device, "wifi_given") == [{"ssid": "home"}]
    assert device.flash.wiped_area == {}


async def test_ble_relays_nothing_else(stage: Stage) -> None:
    """An acknowledgement has no way over the app."""
    binding = await stage.device(radio="ble").provision(end_user_id="eu_1")
    relay = BleRelay(binding, lambda _: None, stage.api)
    with pytest.raises(RadioError, match="relays no ack"):
        await relay.publish(Publish("ack", b"{}"))


async def test_gateway_away(stage: Stage) -> None:
    """A heartbeat that the app can't relay is told, and the next one is tried."""
    device = stage.device(radio="ble")
    await device.provision(end_user_id="eu_1")
    stage.api.url = "http://127.0.0.1:9"
    async with alive(device):
        await device.wait_for_fact("not_sent", count=2)
    assert "no gateway answers" in str(occurrences(device, "not_sent")[0]["reason"])


async def test_http_heartbeats_and_commands(stage: Stage) -> None:
    """Over HTTP the device uses its own token, takes commands out of the answers and acknowledges each by its id."""
    device = stage.device(options=HTTP)
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    command = stage.door.signer.command(
        "start_recording", command_id="cmd_7", device_id=binding.device_id, generation=1
    )
    stage.door.commands = [json.loads(command)]
    async with alive(device):
        await stage.door.until(lambda: len(stage.door.acks) >= 4)
    assert [each["status"] for each in stage.door.acks[:3]] == ["delivered", "executed", "executed"]
    assert {each["path_id"] for each in stage.door.acks} == {"cmd_7"}
    assert {each["bearer"] for each in stage.door.own + stage.door.acks} == {binding.device_token}
    assert device.counts["command_received"] == 1


async def test_http_reset(stage: Stage) -> None:
    """A reset comes with the answer to a heartbeat, and leaves the device unpaired."""
    device = stage.device(options=HTTP)
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    stage.door.commands = [json.loads(stage.door.signer.command(device_id=binding.device_id, generation=1))]
    async with alive(device):
        await device.wait_for("unprovisioned")
    assert [each["status"] for each in stage.door.acks] == ["delivered", "executed"]


async def test_http_refused(stage: Stage) -> None:
    """A token that HTTP refuses is reported after three refusals."""
    device = stage.device(options=HTTP)
    stage.door.token_refused = True
    async with alive(device):
        refused = await device.wait_for_fact("refused")
    assert refused.details["refusals"] == 3


async def test_http_acknowledgement_lost(stage: Stage) -> None:
    """An acknowledgement that HTTP did not take postpones the wipe to the next heartbeat."""
    device = stage.device(options=HTTP)
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    stage.door.commands = [json.loads(stage.door.signer.command(device_id=binding.device_id, generation=1))]
    stage.door.refuse_acks = 2
    async with alive(device):
        await device.wait_for_fact("reset_postponed", count=2)
        await device.wait_for("unprovisioned")
    assert device.counts["reset_begun"] == 1


async def test_facts_hold_no_secret(stage: Stage) -> None:
    """Whatever happens to a device, its token and its WiFi password are in no fact."""
    device = stage.device(radio="ble")
    async with alive(device), asyncio.timeout(GUARD_SECONDS):
        token = device.flash.wiped_area["device_token"]
        device.give_wifi("home", "a wifi password")
        await device.wait_for("online")
        await stage.command(device, "factory_reset")
        await device.wait_for("unprovisioned")
    told = "".join(f"{fact.text}{json.dumps(fact.as_dict())}{fact!r}" for fact in device.facts)
    assert token not in told
    assert token[:13] not in told
    assert "a wifi password" not in told
    assert "(no " not in told, "every sentence finds its details"
