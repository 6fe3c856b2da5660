"""Links over HTTP: the companion app of a BLE-only device, and a device that speaks HTTP itself."""

import asyncio
import json
from dataclasses import replace

import pytest

from device_sim import Options
from device_sim.actions import Publish
from device_sim.errors import RadioError
from device_sim.relay import BleRelay
from tests.device_sim.support import GUARD_SECONDS
from tests.device_sim.testbed import QUICK, DeviceTestbed, fact_details, running

HTTP: Options = replace(QUICK, transport="http")


async def test_a_ble_device_is_relayed_by_the_app(testbed: DeviceTestbed) -> None:
    """The app relays the heartbeats of a BLE-only device, which never connects to the broker nor gets a command."""
    device = testbed.device(radio="ble")
    async with running(device):
        await testbed.gateway.until(lambda: len(testbed.gateway.relayed) >= 3)
        await testbed.command(device, "factory_reset")
        seen = len(testbed.gateway.relayed)
        await testbed.gateway.until(lambda: len(testbed.gateway.relayed) >= seen + 3)
    assert testbed.gateway.relayed[0]["connection_type"] == ["ble"]
    assert testbed.gateway.acks == []
    assert "command_received" not in device.counts
    assert "as dev_" not in testbed.broker.log.read_text()


async def test_a_ble_device_connects_once_it_gets_wifi(testbed: DeviceTestbed) -> None:
    """Given a network, the device comes up over MQTT, finds the reset that waited, and is wiped."""
    device = testbed.device(radio="ble")
    async with running(device):
        await testbed.gateway.until(lambda: bool(testbed.gateway.relayed))
        await testbed.command(device, "factory_reset")
        device.give_wifi("home", "secret")
        await device.wait_for("unprovisioned")
    assert fact_details(device, "wifi_given") == [{"ssid": "home"}]
    assert device.flash.wiped_area == {}


async def test_the_relay_refuses_other_messages(testbed: DeviceTestbed) -> None:
    """An acknowledgement has no way over the app."""
    binding = await testbed.device(radio="ble").provision(end_user_id="eu_1")
    relay = BleRelay(binding, lambda _: None, testbed.api)
    with pytest.raises(RadioError, match="relays no ack"):
        await relay.publish(Publish("ack", b"{}"))


async def test_heartbeats_continue_after_a_gateway_outage(testbed: DeviceTestbed) -> None:
    """A heartbeat that the app can't relay is told, and the next one is tried."""
    device = testbed.device(radio="ble")
    await device.provision(end_user_id="eu_1")
    testbed.api.url = "http://127.0.0.1:9"
    async with running(device):
        await device.wait_for_fact("not_sent", count=2)
    assert "no gateway answers" in str(fact_details(device, "not_sent")[0]["reason"])


async def test_a_device_over_http_gets_commands_with_its_heartbeats(testbed: DeviceTestbed) -> None:
    """Over HTTP the device uses its own token, takes commands out of the answers and acknowledges each by its id."""
    device = testbed.device(options=HTTP)
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    command = testbed.gateway.signer.command(
        "start_recording", command_id="cmd_7", device_id=binding.device_id, generation=1
    )
    testbed.gateway.commands = [json.loads(command)]
    async with running(device):
        await testbed.gateway.until(lambda: len(testbed.gateway.acks) >= 4)
    assert [each["status"] for each in testbed.gateway.acks[:3]] == ["delivered", "executed", "executed"]
    assert {each["path_id"] for each in testbed.gateway.acks} == {"cmd_7"}
    assert {each["bearer"] for each in testbed.gateway.own + testbed.gateway.acks} == {binding.device_token}
    assert device.counts["command_received"] == 1


async def test_a_device_over_http_is_reset(testbed: DeviceTestbed) -> None:
    """A reset comes with the answer to a heartbeat, and leaves the device unpaired and without recordings."""
    device = testbed.device(options=replace(HTTP, recordings=2))
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    command = testbed.gateway.signer.command(device_id=binding.device_id, generation=1, params={"recordings": "wipe"})
    testbed.gateway.commands = [json.loads(command)]
    assert len(device.recordings) == 2
    async with running(device):
        await device.wait_for("unprovisioned")
    delivered, executed = testbed.gateway.acks
    assert (delivered["status"], executed["status"]) == ("delivered", "executed")
    assert executed["result"]["recordings"] == {"wiped": 2, "kept": 0}
    assert device.recordings == {}


async def test_a_refused_token_over_http_is_reported(testbed: DeviceTestbed) -> None:
    """A token that HTTP refuses is reported after three refusals."""
    device = testbed.device(options=HTTP)
    testbed.gateway.token_refused = True
    async with running(device):
        refused = await device.wait_for_fact("refused")
    assert refused.details["refusals"] == 3


async def test_a_lost_acknowledgement_over_http_is_repeated(testbed: DeviceTestbed) -> None:
    """An acknowledgement that HTTP did not take postpones the wipe to the next heartbeat."""
    device = testbed.device(options=HTTP)
    await device.provision(end_user_id="eu_1")
    binding = device.binding
    assert binding is not None
    testbed.gateway.commands = [json.loads(testbed.gateway.signer.command(device_id=binding.device_id, generation=1))]
    testbed.gateway.refuse_acks = 2
    async with running(device):
        await device.wait_for_fact("reset_postponed", count=2)
        await device.wait_for("unprovisioned")
    assert device.counts["reset_begun"] == 1


async def test_facts_hold_no_secret(testbed: DeviceTestbed) -> None:
    """Whatever happens to a device, its token and its WiFi password are in no fact."""
    device = testbed.device(radio="ble")
    async with running(device), asyncio.timeout(GUARD_SECONDS):
        token = device.flash.wiped_area["device_token"]
        device.give_wifi("home", "a wifi password")
        await device.wait_for("online")
        await testbed.command(device, "factory_reset")
        await device.wait_for("unprovisioned")
    facts = "".join(f"{fact.text}{json.dumps(fact.as_dict())}{fact!r}" for fact in device.facts)
    assert token not in facts
    assert token[:13] not in facts
    assert "a wifi password" not in facts
    assert "(no " not in facts, "every sentence finds its details"
