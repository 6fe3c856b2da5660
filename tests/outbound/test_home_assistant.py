"""Announcements to Home Assistant on real brokers: ours follow the registry, those of others are left alone."""

import json
from functools import partial
from pathlib import Path

from structlog.testing import capture_logs

from gateway.domain import devices
from gateway.mqtt.background_publisher import BackgroundPublisher
from gateway.mqtt.retained_scan import ScanMarker
from gateway.outbound.home_assistant import DiscoveryTopic
from gateway.outbound.retained_mirror import RetainedMirror
from gateway.outbound.withdrawals import Withdrawals
from gateway.store import broker_sql
from tests.mqtt.support import HANGS_SECONDS, MqttTestbed, on_every_broker, open_testbed
from tests.support.wait import eventually

ANNOUNCED = "homeassistant/device/+/config"
ON = {"mirrored": ("state", "discovery")}
FOREIGN = {
    "homeassistant/device/dev_elsewhere/config": b'{"state_topic": "other/devices/dev_elsewhere/state"}',
    "homeassistant/device/lamp/config": b'{"state_topic": "devices/lamp/state"}',
    "homeassistant/device/dev_odd/config": b"[not JSON",
}


def make_announcer(testbed: MqttTestbed, mark: ScanMarker, *, prefix: str = "homeassistant") -> BackgroundPublisher:
    """The worker, at a pace for tests."""
    return RetainedMirror(
        testbed.store, DiscoveryTopic(testbed.topics, prefix, testbed.gateway_id), mark, tick_seconds=0.05
    )


async def wait_for_announcements(testbed: MqttTestbed, wanted: set[str], where: str = ANNOUNCED) -> None:
    """Wait until these and no others are announced."""

    async def same() -> bool:
        return {topic for topic, payload in (await testbed.retained(where)).items() if payload} == wanted

    await eventually(same, f"{wanted} are announced")


@on_every_broker
async def test_a_deeply_nested_announcement_is_left_alone(kind: str, tmp_path: Path) -> None:
    """It is not one of ours, and reading it does not end the connection."""
    async with open_testbed(kind, tmp_path, rules=ON) as testbed:
        testbed.outlets = [partial(make_announcer, testbed)]
        async with testbed.admin("other") as client:
            await client.publish("homeassistant/device/dev_deep/config", b"[" * 20_000, retain=True)
        with capture_logs() as logs:
            await testbed.start()
            device = await testbed.bound()
            compared = {"event": "mirror.compared", "leaf": "discovery"}
            await eventually(lambda: any(compared.items() <= each.items() for each in logs), "it has compared")
            await wait_for_announcements(
                testbed, {"homeassistant/device/dev_deep/config", f"homeassistant/device/{device.id}/config"}
            )
        assert [each for each in logs if each["event"] in ("broker.disconnected", "outlet.message_not_read")] == []


@on_every_broker
async def test_own_announcements_follow_and_foreign_ones_stay(kind: str, tmp_path: Path) -> None:
    """Announced, deleted while the gateway is away, forgotten by the broker; a foreign one is neither ours to clear."""
    async with open_testbed(kind, tmp_path, rules=ON) as testbed:
        testbed.outlets = [partial(make_announcer, testbed)]
        async with testbed.admin("other") as client:
            for topic, payload in FOREIGN.items():
                await client.publish(topic, payload, retain=True)
        await testbed.start()
        stays, goes = await testbed.bound("SN-1"), await testbed.bound("SN-2")
        ours = {device.id: f"homeassistant/device/{device.id}/config" for device in (stays, goes)}
        await wait_for_announcements(testbed, set(FOREIGN) | set(ours.values()))
        told = json.loads((await testbed.retained(ANNOUNCED))[ours[stays.id]])
        assert told["state_topic"] == stays.topic("state")
        await testbed.stop()
        await testbed.store.write(lambda tx: devices.delete(tx, testbed.project_id, goes.id, "key_test"))
        async with testbed.admin("other") as client:
            await client.publish(ours[stays.id], b"", retain=True)
        await testbed.start()
        await wait_for_announcements(testbed, set(FOREIGN) | {ours[stays.id]})


async def test_a_changed_prefix_moves_the_announcements(tmp_path: Path) -> None:
    """What lay beneath the old one is taken back."""
    async with open_testbed("mosquitto-5", tmp_path, rules=ON) as testbed:
        testbed.outlets = [partial(make_announcer, testbed)]
        await testbed.start()
        device = await testbed.bound()
        await wait_for_announcements(testbed, {f"homeassistant/device/{device.id}/config"})
        await testbed.stop()
        testbed.outlets = [partial(make_announcer, testbed, prefix="home/found")]
        await testbed.start()
        await wait_for_announcements(testbed, {f"home/found/device/{device.id}/config"}, "home/found/device/+/config")
        await wait_for_announcements(testbed, set())


def make_withdrawer(testbed: MqttTestbed, _: ScanMarker) -> BackgroundPublisher:
    """The worker that repeats what was taken back."""
    return Withdrawals(testbed.store, DiscoveryTopic(testbed.topics, "homeassistant", testbed.gateway_id))


async def wait_for_cleared(testbed: MqttTestbed, wanted: set[str]) -> None:
    """Home Assistant comes: it subscribes, says so, and is told of these and no others that they are gone."""
    async with testbed.admin("other") as client:
        await client.subscribe(ANNOUNCED)
        await client.publish("homeassistant/status", b"online")
        gone: set[str] = set()
        while gone != wanted:
            message = await client.read_publish()
            if not message.payload:
                gone.add(message.topic)
                assert gone <= wanted


@on_every_broker
async def test_deletions_reach_a_home_assistant_that_was_offline(kind: str, tmp_path: Path) -> None:
    """Deleted while it was away: nothing of that is retained, so it is said again when it comes; each time."""
    async with open_testbed(kind, tmp_path, rules=ON) as testbed:
        testbed.outlets = [partial(make_announcer, testbed), partial(make_withdrawer, testbed)]
        await testbed.start()
        stays, goes = await testbed.bound("SN-1"), await testbed.bound("SN-2")
        ours = {device.id: f"homeassistant/device/{device.id}/config" for device in (stays, goes)}
        await wait_for_announcements(testbed, set(ours.values()))
        await testbed.store.write(lambda tx: devices.delete(tx, testbed.project_id, goes.id, "key_test"))
        await wait_for_announcements(testbed, {ours[stays.id]})
        for _ in range(2):
            await wait_for_cleared(testbed, {ours[goes.id]})


@on_every_broker
async def test_the_end_of_announcements_reaches_a_home_assistant_that_was_offline(kind: str, tmp_path: Path) -> None:
    """Announced in an earlier run, switched off, and the broker forgot: all are taken back when it comes."""
    async with open_testbed(kind, tmp_path) as testbed:
        device = await testbed.bound()
        await testbed.store.write(
            lambda tx: broker_sql.set_fact(
                tx, tx.context.broker, DiscoveryTopic.fact, "homeassistant/device/{device_id}/config"
            )
        )
        testbed.outlets = [partial(make_announcer, testbed), partial(make_withdrawer, testbed)]
        await testbed.start()
        await wait_for_cleared(testbed, {f"homeassistant/device/{device.id}/config"})


@on_every_broker
async def test_without_earlier_announcements_nothing_is_cleared(kind: str, tmp_path: Path) -> None:
    """The gateway does not even listen then."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.bound()
        testbed.outlets = [partial(make_announcer, testbed), partial(make_withdrawer, testbed)]
        await testbed.start()
        async with testbed.admin("other") as client:
            await client.subscribe(ANNOUNCED)
            await client.publish("homeassistant/status", b"online")
            assert await testbed.connection.barrier.passed(HANGS_SECONDS)
            await client.publish("homeassistant/device/end/config", b"end")
            assert (await client.read_publish()).payload == b"end"
        assert await testbed.rows("SELECT * FROM refusals") == []
