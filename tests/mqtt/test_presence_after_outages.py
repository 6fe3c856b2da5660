"""Presence after an outage or a pause of the gateway, and after messages from before it."""

import asyncio
from pathlib import Path

from gateway.domain import heartbeats
from gateway.models.heartbeats import Heartbeat
from gateway.store import Tx, health_sql
from gateway.store.device_cache import SenderRecord
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.presence import (
    GRACE_MS,
    RULES,
    SILENCE_MS,
    advance_clock,
    shown_presence,
    wait_offline_due,
    wait_online,
    will,
)
from tests.mqtt.support import MqttTestbed, on_every_broker, on_mosquitto, open_testbed

FLEET = 200


def sender(tx: Tx, device_id: str) -> SenderRecord:
    """The device, as what it says is judged by."""
    row = health_sql.device_state(tx, device_id)
    assert row is not None
    return row


def birth(tx: Tx, device: Device) -> None:
    """It says over MQTT that it is there."""
    heartbeats.device_online(tx, sender(tx, device.id))


async def offline_count(testbed: MqttTestbed) -> int:
    """How many devices were declared offline, ever."""
    return int((await testbed.rows("SELECT count(*) FROM events WHERE type = 'device.offline'"))[0][0])


@on_every_broker
async def test_an_outage_of_the_gateway_takes_no_device_offline(kind: str, tmp_path: Path) -> None:
    """200 devices, heard without a gap; the gateway is away for three times the silence: not one is offline."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        devices = [await testbed.bound(f"SN-{number}") for number in range(FLEET)]
        for each in devices:
            await testbed.store.write(lambda tx, each=each: birth(tx, each))  # type: ignore[misc]
        await testbed.stop()
        advance_clock(testbed, 3 * SILENCE_MS)
        async with testbed.admin() as fleet:
            for each in devices[::2]:
                await fleet.say(each.topic("heartbeat"), heartbeat_payload(50))
        testbed.proxy.delay_seconds = 0.001
        await testbed.start()
        await testbed.presence.look()
        assert await offline_count(testbed) == 0
        advance_clock(testbed, SILENCE_MS)
        await testbed.presence.judge()
        assert await offline_count(testbed) == FLEET, "who stays silent is offline all the same"


@on_every_broker
async def test_a_pause_of_the_process_takes_no_device_offline(kind: str, tmp_path: Path) -> None:
    """The clock goes on while the process stands still; no message was received in that time."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(1))
            await wait_online(testbed, device)
            await testbed.presence.look()
            advance_clock(testbed, 3 * SILENCE_MS)
            await testbed.presence.look()
            assert await shown_presence(testbed, device) == "online"


@on_mosquitto
async def test_silence_is_checked_only_after_the_backlog_is_read(kind: str, tmp_path: Path) -> None:
    """A heartbeat waits unread: the device is not offline, whatever its deadline says."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(1))
            await wait_online(testbed, device)
            testbed.proxy.stall()
            advance_clock(testbed, SILENCE_MS)
            await client.publish(device.topic("heartbeat"), heartbeat_payload(2))
            judged = asyncio.create_task(testbed.presence.judge())
            await asyncio.sleep(0)
            assert await offline_count(testbed) == 0
            testbed.proxy.resume()
            await judged
            assert (await shown_presence(testbed, device), await offline_count(testbed)) == ("online", 0)


@on_every_broker
async def test_a_stale_offline_status_does_not_affect_a_device_over_http(kind: str, tmp_path: Path) -> None:
    """What lies retained is older than what was heard over HTTP; of a device that was there over MQTT it is news."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        await testbed.store.write(
            lambda tx: heartbeats.record_heartbeat(tx, sender(tx, device.id), Heartbeat(), "wifi")
        )
        await testbed.store.write(lambda tx: birth(tx, other))
        async with testbed.admin() as admin:
            for each in (device, other):
                await admin.publish(each.topic("status"), b'{"status":"offline"}', retain=True)
        await testbed.start()
        await wait_offline_due(testbed, other)
        advance_clock(testbed, GRACE_MS)
        await testbed.presence.judge()
        assert [await shown_presence(testbed, each) for each in (device, other)] == ["online", "offline"]


@on_every_broker
async def test_the_gateways_offline_status_is_cleared_at_the_bind(kind: str, tmp_path: Path) -> None:
    """It was put there when the old token was revoked, and says nothing of the new binding."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.unbind(device)
        await testbed.settled()
        topic = device.topic("status")
        assert (await testbed.retained("devices/+/status"))[topic] == b'{"status":"offline"}'
        device = await testbed.bound_again(device)
        await testbed.settled()
        assert topic not in await testbed.retained("devices/+/status")
        async with testbed.join(device, will=will(device)) as client:
            await client.publish(topic, b'{"status":"online"}', retain=True)
            await wait_online(testbed, device)
            await testbed.settled()
            assert (await testbed.retained("devices/+/status"))[topic] == b'{"status":"online"}'
