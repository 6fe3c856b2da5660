"""Presence from statuses, wills and heartbeats, and what time alone brings about (contract, section 3)."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from gateway.domain import heartbeats
from gateway.models.heartbeats import Heartbeat
from gateway.store import Tx, health_sql
from gateway.store.sqlite.device_cache import SenderRecord
from tests.mqtt.support import Device, MovedClock, Site, beat, on_every_broker, on_mosquitto, site
from tests.support import wire
from tests.support.wait import eventually

GRACE_MS = 10_000
SILENCE_MS = 180_000
RULES = {"offline_grace_ms": GRACE_MS, "silence_ms": SILENCE_MS}
DAY_MS = 86_400_000


def will(device: Device) -> wire.Will:
    """The last will that firmware leaves."""
    return wire.Will(device.topic("status"), b'{"status":"offline"}', retain=True)


def later(place: Site, milliseconds: int) -> None:
    """Time passes."""
    clock = place.store.context.clock
    assert isinstance(clock, MovedClock)
    clock.ahead_ms += milliseconds


async def connection(place: Site, device: Device) -> str:
    """`online` or `offline`."""
    rows = await place.rows("SELECT connection FROM health WHERE device_pk = ?", device.pk)
    return str(rows[0][0]) if rows else "unknown"


async def online(place: Site, device: Device) -> None:
    """Wait until the device is online."""

    async def is_online() -> bool:
        return await connection(place, device) == "online"

    await eventually(is_online, "the device was online")


async def due_soon(place: Site, device: Device) -> None:
    """Wait until the device's offline message has been processed."""

    async def is_due() -> bool:
        due = await place.rows("SELECT offline_due_at FROM health WHERE device_pk = ?", device.pk)
        return any(row[0] <= place.store.context.clock() + GRACE_MS for row in due)

    await eventually(is_due, "the good-bye was heard")


@on_every_broker
async def test_a_killed_device_is_offline_after_the_grace_once(kind: str, tmp_path: Path) -> None:
    """Its will is believed after the grace; then there is one event, and no second one for the silence."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device, will=will(device)) as client:
            await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            await online(place, device)
        await due_soon(place, device)
        await place.presence.judge()
        assert await connection(place, device) == "online", "the grace is not over"
        later(place, GRACE_MS)
        await place.presence.judge()
        assert await connection(place, device) == "offline"
        later(place, SILENCE_MS)
        await place.presence.judge()
        assert await place.events(device, "device.o%line") == ["device.online", "device.offline"]


@on_every_broker
async def test_a_flapping_link_makes_no_storm_of_events(kind: str, tmp_path: Path) -> None:
    """Six lives within the grace: one event, and online at the end."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        for life in range(6):
            async with place.join(device, will=will(device)) as client:
                await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
                await client.publish(device.topic("heartbeat"), beat(life))
                await stored(place, life + 1)
            await due_soon(place, device)
            await place.presence.judge()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(99))
            await stored(place, 7)
            later(place, GRACE_MS)
            await place.presence.judge()
        assert await place.events(device, "device.o%line") == ["device.online"]


async def stored(place: Site, count: int) -> None:
    """Wait until so many heartbeats are stored."""

    async def are_there() -> bool:
        return len(await place.beats()) == count

    await eventually(are_there, f"{count} heartbeats were stored")


@on_mosquitto
async def test_silence_ends_in_offline_and_a_heartbeat_in_online(kind: str, tmp_path: Path) -> None:
    """Three intervals without a word; a heartbeat that comes after makes it online again."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(1))
            await online(place, device)
            later(place, SILENCE_MS - 20_000)
            await place.presence.judge()
            assert await connection(place, device) == "online"
            later(place, 20_000)
            await place.presence.judge()
            assert await connection(place, device) == "offline"
            await client.publish(device.topic("heartbeat"), beat(2))
            await online(place, device)
        assert await place.events(device, "device.o%line") == ["device.online", "device.offline", "device.online"]


@on_every_broker
async def test_a_retained_birth_is_not_believed(kind: str, tmp_path: Path) -> None:
    """A gateway that comes back is handed a status of long ago: it may be older than the silence that followed."""
    async with site(kind, tmp_path, rules=RULES) as place:
        device = await place.bound()
        async with place.admin() as admin:
            await admin.publish(device.topic("status"), b'{"status":"online"}', retain=True)
        await place.start()  # and so it has heard all that lay there before
        assert place.proxy.to_gateway[wire.Kind.PUBLISH] > 1
        assert await place.events(device, "device.o%line") == []


async def test_the_running_sweeper_does_it_by_itself(tmp_path: Path) -> None:
    """A command expires and is cleared, a silent device goes offline, without anybody asking."""
    async with site("mosquitto-5", tmp_path, rules=RULES | {"silence_ms": 1_500}) as place:
        await place.start()
        judging = asyncio.create_task(place.presence.run())
        device = await place.bound()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(1))
            await online(place, device)
            await place.command(device, ttl_seconds=60)
            await place.settled()
            assert len(await place.retained()) == 1
            later(place, SILENCE_MS)
            await eventually(lambda: _expired(place), "the command expired")
            await eventually(place.in_step, "its topic was cleared")
            await eventually(lambda: _offline(place, device), "the device is offline")
        judging.cancel()


async def _expired(place: Site) -> bool:
    return [row[0] for row in await place.rows("SELECT status FROM commands")] == ["expired"]


async def _offline(place: Site, device: Device) -> bool:
    return await connection(place, device) == "offline"


async def test_the_sweeper_outlives_what_nobody_foresaw(tmp_path: Path) -> None:
    """One sweep fails with a bug; it is logged with its traceback, and the next one works."""
    trigger = "CREATE TRIGGER bug BEFORE UPDATE ON commands BEGIN SELECT RAISE(ABORT, 'a bug'); END"
    async with site("mosquitto-5", tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        await place.command(device, ttl_seconds=60)
        await place.store.write(lambda tx: tx.run(trigger))
        with capture_logs() as logs:
            later(place, SILENCE_MS)
            await eventually(lambda: [each for each in logs if each["event"] == "expiry.failed"], "a sweep failed")
        await place.store.write(lambda tx: tx.run("DROP TRIGGER bug"))
        await eventually(lambda: _expired(place), "the command expired")


async def test_old_history_goes_in_short_transactions(tmp_path: Path) -> None:
    """Heartbeats and events beyond their days are dropped, the young ones stay."""
    async with site("mosquitto-5", tmp_path, rules={"heartbeat_history_days": 1, "event_history_days": 2}) as place:
        device = await place.bound()
        insert = "INSERT INTO heartbeats (device_pk, received_at, battery_percent) VALUES (?, ?, ?)"
        now = place.store.context.clock()
        await place.store.write(
            lambda tx: (
                [tx.run(insert, device.pk, now - 2 * DAY_MS, 1) for _ in range(12_000)]
                + [tx.run(insert, device.pk, now, 2)]
            )
        )
        with capture_logs() as logs:
            await place.sweeper.prune()
        assert await place.beats() == [2]
        assert [each["rows"] for each in logs if each["event"] == "expiry.pruned"] == [5_000, 5_000, 2_000]
        assert len(await place.events(device)) == 2
        later(place, 3 * DAY_MS)
        await place.sweeper.prune()
        assert await place.events(device) == []


@on_every_broker
async def test_a_clock_that_is_set_back_keeps_nobody_online(kind: str, tmp_path: Path) -> None:
    """An hour back: heartbeats, resets and orders of events go on, and silence is counted from then."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device, silent = await place.bound(), await place.bound("SN-2")
        for each in (device, silent):
            async with place.join(each) as client:
                await client.publish(each.topic("heartbeat"), beat(80))
                await online(place, each)
        later(place, -3_600_000)
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(70))
            await eventually(lambda: _stored(place, 3), "the heartbeat is stored")
            command = await place.reset(device)
            await client.subscribe(device.topic("commands/factory_reset"))
            assert command.id.encode() in (await client.read_publish()).payload
        await place.presence.judge()
        await waited_for_no_longer(place, silent)
        later(place, SILENCE_MS + 1_000)

        await place.presence.judge()
        assert await connection(place, silent) == "offline"
        assert (await place.events(silent))[-1] == "device.offline"
        rows = await place.rows("SELECT id FROM events ORDER BY seq")
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)


async def _stored(place: Site, count: int) -> bool:
    return len(await place.beats()) == count


async def waited_for_no_longer(place: Site, device: Device) -> None:
    """Wait until its silence is counted from no later than now."""

    async def is_due_in_time() -> bool:
        due = await place.rows("SELECT offline_due_at FROM health WHERE device_pk = ?", device.pk)
        return bool(due[0][0] <= place.store.context.clock() + SILENCE_MS)

    await eventually(is_due_in_time, "the silence was counted from now")


FLEET = 200


def sender(tx: Tx, device_id: str) -> SenderRecord:
    """The device, as what it says is judged by."""
    row = health_sql.device_state(tx, device_id)
    assert row is not None
    return row


def birth(tx: Tx, device: Device) -> None:
    """It says over MQTT that it is there."""
    heartbeats.device_online(tx, sender(tx, device.id))


async def offline_count(place: Site) -> int:
    """How many devices were declared offline, ever."""
    return int((await place.rows("SELECT count(*) FROM events WHERE type = 'device.offline'"))[0][0])


@on_every_broker
async def test_an_outage_of_the_gateway_takes_no_device_offline(kind: str, tmp_path: Path) -> None:
    """200 devices, heard without a gap; the gateway is away for three times the silence: not one is offline."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        devices = [await place.bound(f"SN-{number}") for number in range(FLEET)]
        for each in devices:
            await place.store.write(lambda tx, each=each: birth(tx, each))  # type: ignore[misc]
        await place.stop()
        later(place, 3 * SILENCE_MS)
        async with place.admin() as fleet:
            for each in devices[::2]:
                await fleet.say(each.topic("heartbeat"), beat(50))
        place.proxy.delay_seconds = 0.001
        await place.start()
        await place.presence.look()
        assert await offline_count(place) == 0
        later(place, SILENCE_MS)
        await place.presence.judge()
        assert await offline_count(place) == FLEET, "who stays silent is offline all the same"


@on_every_broker
async def test_a_pause_of_the_process_takes_no_device_offline(kind: str, tmp_path: Path) -> None:
    """The clock goes on while the process stands still; no message was received in that time."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(1))
            await online(place, device)
            await place.presence.look()
            later(place, 3 * SILENCE_MS)
            await place.presence.look()
            assert await connection(place, device) == "online"


@on_mosquitto
async def test_silence_is_judged_only_with_the_backlog_read(kind: str, tmp_path: Path) -> None:
    """A heartbeat waits unread: the device is not offline, whatever its deadline says."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), beat(1))
            await online(place, device)
            place.proxy.stall()
            later(place, SILENCE_MS)
            await client.publish(device.topic("heartbeat"), beat(2))
            judged = asyncio.create_task(place.presence.judge())
            await asyncio.sleep(0)
            assert await offline_count(place) == 0
            place.proxy.resume()
            await judged
            assert (await connection(place, device), await offline_count(place)) == ("online", 0)


@on_every_broker
async def test_a_stale_farewell_takes_no_device_offline_that_speaks_http(kind: str, tmp_path: Path) -> None:
    """What lies retained is older than what was heard over HTTP; of a device that was there over MQTT it is news."""
    async with site(kind, tmp_path, rules=RULES) as place:
        device, other = await place.bound(), await place.bound("SN-2")
        await place.store.write(lambda tx: heartbeats.record_heartbeat(tx, sender(tx, device.id), Heartbeat(), "wifi"))
        await place.store.write(lambda tx: birth(tx, other))
        async with place.admin() as admin:
            for each in (device, other):
                await admin.publish(each.topic("status"), b'{"status":"offline"}', retain=True)
        await place.start()
        await due_soon(place, other)
        later(place, GRACE_MS)
        await place.presence.judge()
        assert [await connection(place, each) for each in (device, other)] == ["online", "offline"]


@on_every_broker
async def test_the_gateways_own_farewell_is_cleared_at_the_bind(kind: str, tmp_path: Path) -> None:
    """It was put there when the old token was revoked, and says nothing of the new binding."""
    async with site(kind, tmp_path, rules=RULES) as place:
        await place.start()
        device = await place.bound()
        await place.unbind(device)
        await place.settled()
        topic = device.topic("status")
        assert (await place.retained("devices/+/status"))[topic] == b'{"status":"offline"}'
        device = await place.bound_again(device)
        await place.settled()
        assert topic not in await place.retained("devices/+/status")
        async with place.join(device, will=will(device)) as client:
            await client.publish(topic, b'{"status":"online"}', retain=True)
            await online(place, device)
            await place.settled()
            assert (await place.retained("devices/+/status"))[topic] == b'{"status":"online"}'
