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
from gateway.store import key_sql
from tests.mqtt.support import HANGS_SECONDS, Site, on_every_broker, site
from tests.support.wait import eventually

ANNOUNCED = "homeassistant/device/+/config"
ON = {"mirrored": ("state", "discovery")}
FOREIGN = {
    "homeassistant/device/dev_elsewhere/config": b'{"state_topic": "other/devices/dev_elsewhere/state"}',
    "homeassistant/device/lamp/config": b'{"state_topic": "devices/lamp/state"}',
    "homeassistant/device/dev_odd/config": b"[not JSON",
}


def announcing(place: Site, mark: ScanMarker, *, prefix: str = "homeassistant") -> BackgroundPublisher:
    """The worker, at a pace for tests."""
    return RetainedMirror(place.store, DiscoveryTopic(place.topics, prefix, place.gateway_id), mark, tick_seconds=0.05)


async def becomes(place: Site, wanted: set[str], where: str = ANNOUNCED) -> None:
    """Wait until these and no others are announced."""

    async def same() -> bool:
        return {topic for topic, payload in (await place.retained(where)).items() if payload} == wanted

    await eventually(same, f"{wanted} are announced")


@on_every_broker
async def test_an_announcement_that_is_nested_deeply_is_left_alone(kind: str, tmp_path: Path) -> None:
    """It is not one of ours, and reading it does not end the connection."""
    async with site(kind, tmp_path, rules=ON) as place:
        place.outlets = [partial(announcing, place)]
        async with place.admin("other") as client:
            await client.publish("homeassistant/device/dev_deep/config", b"[" * 20_000, retain=True)
        with capture_logs() as logs:
            await place.start()
            device = await place.bound()
            compared = {"event": "mirror.compared", "leaf": "discovery"}
            await eventually(lambda: any(compared.items() <= each.items() for each in logs), "it has compared")
            await becomes(place, {"homeassistant/device/dev_deep/config", f"homeassistant/device/{device.id}/config"})
        assert [each for each in logs if each["event"] in ("broker.disconnected", "outlet.message_not_read")] == []


@on_every_broker
async def test_ours_follow_and_others_stay(kind: str, tmp_path: Path) -> None:
    """Announced, deleted while the gateway is away, forgotten by the broker; a foreign one is neither ours to clear."""
    async with site(kind, tmp_path, rules=ON) as place:
        place.outlets = [partial(announcing, place)]
        async with place.admin("other") as client:
            for topic, payload in FOREIGN.items():
                await client.publish(topic, payload, retain=True)
        await place.start()
        stays, goes = await place.bound("SN-1"), await place.bound("SN-2")
        ours = {device.id: f"homeassistant/device/{device.id}/config" for device in (stays, goes)}
        await becomes(place, set(FOREIGN) | set(ours.values()))
        told = json.loads((await place.retained(ANNOUNCED))[ours[stays.id]])
        assert told["state_topic"] == stays.topic("state")
        await place.stop()
        await place.store.write(lambda tx: devices.delete(tx, place.project_id, goes.id, "key_test"))
        async with place.admin("other") as client:
            await client.publish(ours[stays.id], b"", retain=True)
        await place.start()
        await becomes(place, set(FOREIGN) | {ours[stays.id]})


async def test_another_prefix_moves_them(tmp_path: Path) -> None:
    """What lay beneath the old one is taken back."""
    async with site("mosquitto-5", tmp_path, rules=ON) as place:
        place.outlets = [partial(announcing, place)]
        await place.start()
        device = await place.bound()
        await becomes(place, {f"homeassistant/device/{device.id}/config"})
        await place.stop()
        place.outlets = [partial(announcing, place, prefix="home/found")]
        await place.start()
        await becomes(place, {f"home/found/device/{device.id}/config"}, "home/found/device/+/config")
        await becomes(place, set())


def withdrawing(place: Site, _: ScanMarker) -> BackgroundPublisher:
    """The worker that repeats what was taken back."""
    return Withdrawals(place.store, DiscoveryTopic(place.topics, "homeassistant", place.gateway_id))


async def told_empty(place: Site, wanted: set[str]) -> None:
    """Home Assistant comes: it subscribes, says so, and is told of these and no others that they are gone."""
    async with place.admin("other") as client:
        await client.subscribe(ANNOUNCED)
        await client.publish("homeassistant/status", b"online")
        gone: set[str] = set()
        while gone != wanted:
            message = await client.read_publish()
            if not message.payload:
                gone.add(message.topic)
                assert gone <= wanted


@on_every_broker
async def test_a_home_assistant_that_was_away_hears_of_deleted_devices(kind: str, tmp_path: Path) -> None:
    """Deleted while it was away: nothing of that is retained, so it is said again when it comes; each time."""
    async with site(kind, tmp_path, rules=ON) as place:
        place.outlets = [partial(announcing, place), partial(withdrawing, place)]
        await place.start()
        stays, goes = await place.bound("SN-1"), await place.bound("SN-2")
        ours = {device.id: f"homeassistant/device/{device.id}/config" for device in (stays, goes)}
        await becomes(place, set(ours.values()))
        await place.store.write(lambda tx: devices.delete(tx, place.project_id, goes.id, "key_test"))
        await becomes(place, {ours[stays.id]})
        for _ in range(2):
            await told_empty(place, {ours[goes.id]})


@on_every_broker
async def test_a_home_assistant_that_was_away_hears_that_nothing_is_announced(kind: str, tmp_path: Path) -> None:
    """Announced in an earlier run, switched off, and the broker forgot: all are taken back when it comes."""
    async with site(kind, tmp_path) as place:
        device = await place.bound()
        await place.store.write(
            lambda tx: key_sql.set_meta(tx, DiscoveryTopic.fact, "homeassistant/device/{device_id}/config")
        )
        place.outlets = [partial(announcing, place), partial(withdrawing, place)]
        await place.start()
        await told_empty(place, {f"homeassistant/device/{device.id}/config"})


@on_every_broker
async def test_nobody_is_told_where_nothing_was_ever_announced(kind: str, tmp_path: Path) -> None:
    """The gateway does not even listen then."""
    async with site(kind, tmp_path) as place:
        await place.bound()
        place.outlets = [partial(announcing, place), partial(withdrawing, place)]
        await place.start()
        async with place.admin("other") as client:
            await client.subscribe(ANNOUNCED)
            await client.publish("homeassistant/status", b"online")
            assert await place.connection.barrier.passed(HANGS_SECONDS)
            await client.publish("homeassistant/device/end/config", b"end")
            assert (await client.read_publish()).payload == b"end"
        assert await place.rows("SELECT * FROM refusals") == []
