"""The radio against a real Mosquitto: birth and will, QoS, retained commands, reconnects, refused tokens, TLS."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from device_sim import GatewayApi, MemoryFlash, Options, SeededFaults, SimulatedDevice
from device_sim.options import MqttVersion
from gateway.tls.ca import Authority
from tests.device_sim.support import API_KEY, GUARD_SECONDS, mosquitto, seeded, stop, stub_gateway
from tests.device_sim.testbed import QUICK, DeviceTestbed, fact_details, open_testbed, running
from tests.support.certificates import make_authority, server_pair
from tests.support.wait import eventually


def device_id(device: SimulatedDevice) -> str:
    """Under which id it is bound."""
    assert device.binding is not None
    return device.binding.device_id


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_device_publishes_online_and_heartbeats(testbed: DeviceTestbed, version: MqttVersion) -> None:
    """A device announces itself on a retained topic and sends heartbeats that are not retained, all at QoS 1."""
    device = testbed.device(options=replace(QUICK, mqtt_version=version))
    async with running(device):
        heartbeat = await testbed.wait_for_message("/heartbeat")
        async with testbed.broker.client("late") as late:
            await late.subscribe(f"devices/{device_id(device)}/#", qos=1)
            status = await anext(late.messages)
    assert (status.topic.value, status.payload) == (f"devices/{device_id(device)}/status", b'{"status":"online"}')
    assert status.retain
    assert (heartbeat.qos, heartbeat.retain) == (1, False)
    assert json.loads(bytes(heartbeat.payload))["connection_type"] == ["wifi"]


async def test_the_connect_packet_has_the_contracts_fields(testbed: DeviceTestbed) -> None:
    """User name and client id are the device id, the session is persistent, the will is retained: as the broker saw."""
    device = testbed.device()
    async with running(device):
        await device.wait_for("online")
    log, name = testbed.broker.log.read_text(), device_id(device)
    assert f"as {name} (p2, c0, k30, u'{name}')." in log
    assert "Will message specified (20 bytes) (r1, q1).\n" in log
    assert f"devices/{name}/commands/factory_reset (QoS 1)" in log
    assert "commands/+" not in log


async def test_a_clean_stop_publishes_offline(testbed: DeviceTestbed) -> None:
    """A device that is switched off in order says `offline` itself."""
    device = testbed.device()
    async with running(device):
        await device.wait_for("online")
    async with asyncio.timeout(GUARD_SECONDS):
        offline = await testbed.wait_for_message("/status", b'{"status":"offline"}')
    assert offline.topic.value == f"devices/{device_id(device)}/status"
    farewell = f"Client {device_id(device)} disconnected."
    await eventually(lambda: farewell in testbed.broker.log.read_text(), "the broker logged a DISCONNECT")


async def test_a_power_cut_publishes_the_will(testbed: DeviceTestbed) -> None:
    """A device that loses power says nothing; the broker says `offline` for it, and it comes back."""
    device = testbed.device()
    async with running(device):
        await device.wait_for("online")
        await device.cut_power()
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
        await device.wait_for_fact("online", count=2)
        await testbed.wait_for_message("/status", b'{"status":"online"}')
    assert fact_details(device, "power_cut") == [{"step": "now"}]


@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_reset_wipes_the_device_and_is_acknowledged(testbed: DeviceTestbed, version: MqttVersion) -> None:
    """A retained reset is acknowledged, carried out, acknowledged over the same session, and the device is unpaired."""
    device = testbed.device(options=replace(QUICK, mqtt_version=version))
    async with running(device):
        await testbed.command(device, "factory_reset")
        delivered = await testbed.wait_for_message("/commands/factory_reset/ack")
        executed = await testbed.wait_for_message("/commands/factory_reset/ack")
        await device.wait_for("unprovisioned")
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    assert json.loads(bytes(delivered.payload))["status"] == "delivered"
    assert json.loads(bytes(executed.payload))["result"]["wiped"] == ["device_token", "pairing", "wifi_networks"]
    assert (executed.qos, executed.retain) == (1, False)
    assert device.flash.wiped_area == {}
    assert [each["what"] for each in fact_details(device, "wiped")] == ["device_token", "pairing", "wifi_networks"]
    assert fact_details(device, "offline") == []


async def test_a_retained_command_waits_for_the_device(testbed: DeviceTestbed) -> None:
    """A command that was retained before the device came is found by its full name."""
    device = testbed.device()
    await device.provision(end_user_id="eu_1")
    await testbed.command(device, "start_recording")
    async with running(device):
        fact = await device.wait_for_fact("acknowledged", count=2)
    assert fact.details["status"] == "executed"


async def test_a_redelivered_command_is_executed_once(testbed: DeviceTestbed) -> None:
    """A retained command comes with every reconnect; it is done once and acknowledged each time."""
    device = testbed.device()
    async with running(device):
        await testbed.command(device, "start_recording")
        await device.wait_for_fact("acknowledged", count=2)
        for count in (3, 4, 5):
            await device.cut_power()
            await device.wait_for_fact("acknowledged", count=count)
    assert [each["status"] for each in fact_details(device, "acknowledged")] == ["delivered", *["executed"] * 4]
    assert len({str(each["receipt"]) for each in fact_details(device, "acknowledged")[1:]}) == 1
    assert device.counts["command_received"] == 1


async def test_the_persistent_session_keeps_unretained_commands(testbed: DeviceTestbed) -> None:
    """The session outlives the connection: a command that was sent meanwhile arrives."""
    device = testbed.device()
    async with running(device):
        await device.wait_for("online")
    await testbed.command(device, "trigger_upload", retain=False)
    async with running(device):
        await device.wait_for_fact("acknowledged", count=2)
    assert device.counts["command_received"] == 1


async def test_a_device_uses_the_topic_prefix(tmp_path: Path) -> None:
    """The prefix is learnt from the bind answer and stands before every topic."""
    async with open_testbed(tmp_path, prefix="acme/eu/") as testbed:
        device = testbed.device()
        async with running(device):
            await testbed.wait_for_message("/heartbeat")
            await testbed.command(device, "start_recording")
            ack = await testbed.wait_for_message("/ack")
    assert ack.topic.value == f"acme/eu/devices/{device_id(device)}/commands/start_recording/ack"


async def test_a_message_on_errors_becomes_a_fact(testbed: DeviceTestbed) -> None:
    """What the gateway says about a refused message becomes a fact."""
    device = testbed.device()
    async with running(device):
        await device.wait_for("online")
        await testbed.observer.publish(f"devices/{device_id(device)}/errors", b'{"code":"invalid_request"}')
        fact = await device.wait_for_fact("message_refused")
    assert fact.details == {"answer": '{"code":"invalid_request"}'}


async def test_a_device_reconnects_when_the_broker_is_back(tmp_path: Path) -> None:
    """A broker that is away costs nothing but time."""
    async with stub_gateway() as gateway, GatewayApi(gateway.url, API_KEY) as api:
        device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=api, interval=0.05, rng=seeded(), options=QUICK)
        async with mosquitto(tmp_path) as broker:
            gateway.mqtt_port = port = broker.port
            await device.provision(end_user_id="eu_1")
            task = asyncio.create_task(device.run())
            async with asyncio.timeout(GUARD_SECONDS):
                await device.wait_for("online")
                stop(broker.process)
                await device.wait_for_fact("offline", count=3)
        async with mosquitto(tmp_path, port=port), asyncio.timeout(GUARD_SECONDS):
            await device.wait_for("online")
            task.cancel()
            await asyncio.wait([task])


async def test_a_cut_right_after_the_connect_counts_as_a_failure(testbed: DeviceTestbed) -> None:
    """A link that is cut as soon as it is up counts as a failure: each pause may be twice the one before."""
    first = 0.05
    faults = SeededFaults(seeded(), flap=(0.0, 0.0))
    device = testbed.device(options=Options(faults=faults, backoff_first=first, backoff_longest=10))
    async with running(device):
        await device.wait_for_fact("online", count=5)
    downs = [each.at for each in device.facts if each.name == "offline"]
    ups = [each.at for each in device.facts if each.name == "online"][1:]
    pauses = [(up - down) / 1000 for down, up in zip(downs, ups, strict=False)]
    assert all(pause >= first * 2**number / 2 - 0.002 for number, pause in enumerate(pauses)), pauses


async def test_a_refused_token_is_reported(tmp_path: Path) -> None:
    """A refused token is reported after three refusals, and tried on: it may be the broker that is late.

    A link that is opened later counts its own.
    """
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    extra = f"allow_anonymous false\npassword_file {passwords}"
    async with (
        mosquitto(tmp_path, extra=extra) as broker,
        stub_gateway(mqtt_port=broker.port) as gateway,
        GatewayApi(gateway.url, API_KEY) as api,
    ):
        device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=api, interval=0.05, rng=seeded(), options=QUICK)
        async with running(device):
            refused = await device.wait_for_fact("refused")
            await device.cut_power()
            await device.wait_for_fact("refused", count=2)
            binding = device.binding
            assert binding is not None
            passwords.write_text(f"{binding.device_id}:{binding.mqtt_password}\n")
            await _hash(passwords)
            broker.process.send_signal(1)
            await device.wait_for("online")
    assert refused.details["refusals"] == 3
    assert "uthori" in str(refused.details["reason"])


async def _hash(passwords: Path) -> None:
    """Turn plain passwords into what Mosquitto reads."""
    process = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(passwords))
    assert await process.wait() == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority and a server certificate for 127.0.0.1."""
    return make_authority(tmp_path_factory.mktemp("tls"))


async def test_a_device_connects_over_tls(tmp_path: Path, certificates: Authority) -> None:
    """With `mqtt.tls` the device speaks TLS, and trusts the authority that it was given and no other."""
    pair = server_pair(certificates)
    extra = f"allow_anonymous true\ncertfile {pair.certificate}\nkeyfile {pair.key}"
    async with (
        mosquitto(tmp_path, extra=extra) as broker,
        stub_gateway(mqtt_port=broker.port) as gateway,
        GatewayApi(gateway.url, API_KEY) as api,
    ):
        gateway.tls = True
        for ca_file, fact in ((str(certificates.files.certificate), "online"), (None, "offline")):
            device = SimulatedDevice(
                serial=f"SN-{fact}",
                flash=MemoryFlash(),
                api=api,
                rng=seeded(),
                options=replace(QUICK, ca_file=ca_file),
            )
            async with running(device):
                await device.wait_for_fact(fact)
            assert ("online" in device.counts) == (ca_file is not None)
            facts = [str(each.get("reason")) for each in fact_details(device, "offline")]
            assert ca_file or "name its authority with --ca-file" in facts[0]


@pytest.mark.parametrize("seed", range(4))
async def test_a_reset_ends_despite_faults(testbed: DeviceTestbed, seed: int) -> None:
    """Messages lost, doubled and late, links that flap: the reset is done, and done once."""
    faults = SeededFaults(seeded(seed), drop=0.2, duplicate=0.3, delay=(0.0, 0.02), flap=(0.02, 0.3))
    device = testbed.device(options=replace(QUICK, faults=faults), seed=seed)
    async with running(device):
        await testbed.command(device, "factory_reset")
        await device.wait_for("unprovisioned")
    assert device.counts["reset_begun"] == 1
    assert device.flash.wiped_area == {}


@pytest.mark.parametrize("cut", ["write:reset_in_progress", "erase:pairing", "publish:ack:executed", "reboot"])
async def test_a_power_cut_during_a_reset_ends_in_a_wiped_device(testbed: DeviceTestbed, cut: str) -> None:
    """The power goes at a named step, with a real broker beside it: the device ends unpaired all the same."""
    faults = SeededFaults(seeded(), power_cuts=[cut])
    device = testbed.device(options=replace(QUICK, faults=faults))
    async with running(device):
        await testbed.command(device, "factory_reset")
        await device.wait_for_fact("power_cut")
        await device.wait_for("unprovisioned")
        await testbed.wait_for_message("/status", b'{"status":"offline"}')
    assert fact_details(device, "power_cut") == [{"step": cut}]
    assert device.flash.wiped_area == {}
