"""Presence from statuses, wills and heartbeats, and what time alone brings about (contract, section 3)."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

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
from tests.support import wire
from tests.support.faults import allow, refuse
from tests.support.wait import eventually

DAY_MS = 86_400_000


@on_every_broker
async def test_a_killed_device_is_offline_after_the_grace_once(kind: str, tmp_path: Path) -> None:
    """Its will is believed after the grace; then there is one event, and no second one for the silence."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device, will=will(device)) as client:
            await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            await wait_online(testbed, device)
        await wait_offline_due(testbed, device)
        await testbed.presence.judge()
        assert await shown_presence(testbed, device) == "online", "the grace is not over"
        advance_clock(testbed, GRACE_MS)
        await testbed.presence.judge()
        assert await shown_presence(testbed, device) == "offline"
        advance_clock(testbed, SILENCE_MS)
        await testbed.presence.judge()
        assert await testbed.events(device, "device.o%line") == ["device.online", "device.offline"]


@on_every_broker
async def test_a_flapping_link_causes_few_events(kind: str, tmp_path: Path) -> None:
    """Six lives within the grace: one event, and online at the end."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        for life in range(6):
            async with testbed.join(device, will=will(device)) as client:
                await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
                await client.publish(device.topic("heartbeat"), heartbeat_payload(life))
                await stored(testbed, life + 1)
            await wait_offline_due(testbed, device)
            await testbed.presence.judge()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(99))
            await stored(testbed, 7)
            advance_clock(testbed, GRACE_MS)
            await testbed.presence.judge()
        assert await testbed.events(device, "device.o%line") == ["device.online"]


async def stored(testbed: MqttTestbed, count: int) -> None:
    """Wait until so many heartbeats are stored."""

    async def are_there() -> bool:
        return len(await testbed.stored_batteries()) == count

    await eventually(are_there, f"{count} heartbeats were stored")


@on_mosquitto
async def test_silence_ends_in_offline_and_a_heartbeat_in_online(kind: str, tmp_path: Path) -> None:
    """Three intervals without a word; a heartbeat that comes after makes it online again."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(1))
            await wait_online(testbed, device)
            advance_clock(testbed, SILENCE_MS - 20_000)
            await testbed.presence.judge()
            assert await shown_presence(testbed, device) == "online"
            advance_clock(testbed, 20_000)
            await testbed.presence.judge()
            assert await shown_presence(testbed, device) == "offline"
            await client.publish(device.topic("heartbeat"), heartbeat_payload(2))
            await wait_online(testbed, device)
        assert await testbed.events(device, "device.o%line") == ["device.online", "device.offline", "device.online"]


@on_every_broker
async def test_a_retained_online_status_is_ignored(kind: str, tmp_path: Path) -> None:
    """A gateway that comes back is handed a status of long ago: it may be older than the silence that followed."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        device = await testbed.bound()
        async with testbed.admin() as admin:
            await admin.publish(device.topic("status"), b'{"status":"online"}', retain=True)
        await testbed.start()  # and so it has heard all that lay there before
        assert testbed.proxy.to_gateway[wire.Kind.PUBLISH] > 1
        assert await testbed.events(device, "device.o%line") == []


async def test_the_running_worker_expires_commands_and_presence(tmp_path: Path) -> None:
    """A command expires and is cleared, a silent device goes offline, without anybody asking."""
    async with open_testbed("mosquitto-5", tmp_path, rules=RULES | {"silence_ms": 1_500}) as testbed:
        await testbed.start()
        judging = asyncio.create_task(testbed.presence.run())
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(1))
            await wait_online(testbed, device)
            await testbed.command(device, ttl_seconds=60)
            await testbed.settled()
            assert len(await testbed.retained()) == 1
            advance_clock(testbed, SILENCE_MS)
            await eventually(lambda: _expired(testbed), "the command expired")
            await eventually(testbed.is_in_sync, "its topic was cleared")
            await eventually(lambda: _offline(testbed, device), "the device is offline")
        judging.cancel()


async def _expired(testbed: MqttTestbed) -> bool:
    return [row[0] for row in await testbed.rows("SELECT status FROM commands")] == ["expired"]


async def _offline(testbed: MqttTestbed, device: Device) -> bool:
    return await shown_presence(testbed, device) == "offline"


async def test_the_worker_survives_unforeseen_errors(tmp_path: Path) -> None:
    """One sweep fails with a bug; it is logged with its traceback, and the next one works."""
    async with open_testbed("mosquitto-5", tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.command(device, ttl_seconds=60)
        await testbed.store.write(lambda tx: refuse(tx, "bug", "UPDATE", "commands"))
        with capture_logs() as logs:
            advance_clock(testbed, SILENCE_MS)
            await eventually(lambda: [each for each in logs if each["event"] == "expiry.failed"], "a sweep failed")
        await testbed.store.write(lambda tx: allow(tx, "bug", "commands"))
        await eventually(lambda: _expired(testbed), "the command expired")


async def test_old_history_goes_in_short_transactions(tmp_path: Path) -> None:
    """Heartbeats and events beyond their days are dropped, the young ones stay."""
    async with open_testbed(
        "mosquitto-5", tmp_path, rules={"heartbeat_history_days": 1, "event_history_days": 2}
    ) as testbed:
        device = await testbed.bound()
        insert = "INSERT INTO heartbeats (id, device_pk, received_at, battery_percent) VALUES (?, ?, ?, ?)"
        now = testbed.store.context.clock()
        await testbed.store.write(
            lambda tx: (
                [tx.run(insert, number, device.pk, now - 2 * DAY_MS, 1) for number in range(1, 12_001)]
                + [tx.run(insert, 12_001, device.pk, now, 2)]
            )
        )
        with capture_logs() as logs:
            await testbed.expiry_worker.prune()
        assert await testbed.stored_batteries() == [2]
        assert [each["rows"] for each in logs if each["event"] == "expiry.pruned"] == [5_000, 5_000, 2_000]
        assert len(await testbed.events(device)) == 2
        advance_clock(testbed, 3 * DAY_MS)
        await testbed.expiry_worker.prune()
        assert await testbed.events(device) == []


@on_every_broker
async def test_a_clock_that_is_set_back_keeps_no_device_online(kind: str, tmp_path: Path) -> None:
    """An hour back: heartbeats, resets and orders of events go on, and silence is counted from then."""
    async with open_testbed(kind, tmp_path, rules=RULES) as testbed:
        await testbed.start()
        device, silent = await testbed.bound(), await testbed.bound("SN-2")
        for each in (device, silent):
            async with testbed.join(each) as client:
                await client.publish(each.topic("heartbeat"), heartbeat_payload(80))
                await wait_online(testbed, each)
        advance_clock(testbed, -3_600_000)
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(70))
            await eventually(lambda: _stored(testbed, 3), "the heartbeat is stored")
            command = await testbed.reset(device)
            await client.subscribe(device.topic("commands/factory_reset"))
            assert command.id.encode() in (await client.read_publish()).payload
        await testbed.presence.judge()
        await waited_for_no_longer(testbed, silent)
        advance_clock(testbed, SILENCE_MS + 1_000)

        await testbed.presence.judge()
        assert await shown_presence(testbed, silent) == "offline"
        assert (await testbed.events(silent))[-1] == "device.offline"
        rows = await testbed.rows("SELECT id FROM events ORDER BY seq")
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)


async def _stored(testbed: MqttTestbed, count: int) -> bool:
    return len(await testbed.stored_batteries()) == count


async def waited_for_no_longer(testbed: MqttTestbed, device: Device) -> None:
    """Wait until its silence is counted from no later than now."""

    async def is_due_in_time() -> bool:
        due = await testbed.rows("SELECT offline_due_at FROM health WHERE device_pk = ?", device.pk)
        return bool(due[0][0] <= testbed.store.context.clock() + SILENCE_MS)

    await eventually(is_due_in_time, "the silence was counted from now")
