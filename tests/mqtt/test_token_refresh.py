"""A refreshed token at the broker: the old one lasts until the new one is used (contract, section 2)."""

from dataclasses import replace
from pathlib import Path

from gateway.domain import devices
from gateway.store import Tx, View, device_sql, health_sql, outbox_sql, token_sql
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_mosquitto, open_testbed
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.wait import GUARD_SECONDS, eventually

REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}


async def refreshed(testbed: MqttTestbed, device: Device) -> Device:
    """The device with the token that it gets for its own, a minute after it got one last."""
    clock = testbed.store.context.clock
    assert isinstance(clock, ShiftedClock)
    clock.ahead_ms += 60_000
    row = await testbed.store.read(lambda view: token_sql.by_secret(view, device.token))
    assert row
    new = await testbed.store.write(lambda tx: devices.refresh(tx, testbed.project_id, device.id, row.id))
    return replace(device, token=new.device_token)


async def answer(testbed: MqttTestbed, device: Device) -> int:
    """What the broker answers to this device's CONNECT."""
    async with wire.Wire.open("127.0.0.1", testbed.broker.port) as client:
        return await client.connect(device.id, device.id, device.mqtt_password)


async def state(testbed: MqttTestbed, device: Device) -> str:
    """What the registry says of its token."""

    def read(view: View) -> str:
        row = token_sql.by_secret(view, device.token)
        return "unknown" if row is None else str(row.state)

    return await testbed.store.read(read)


async def test_the_old_session_stays_until_the_new_token_connects(tmp_path: Path) -> None:
    """Embedded: both tokens connect; the first connect of the new one takes over, stays, and ends the old one."""
    async with open_testbed("embedded", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as old:
            new = await refreshed(testbed, device)
            await testbed.settled()
            await old.ping()
            async with testbed.join(new) as client:
                await old.closed()
                await testbed.settled()
                await client.ping()
                assert await state(testbed, device) == "revoked"
                assert await answer(testbed, device) in REFUSED
                await client.ping()
        assert await testbed.events(device, "token.%") == ["token.refreshed", "token.revoked"]


async def test_the_old_token_can_reconnect_until_the_first_use(tmp_path: Path) -> None:
    """Embedded: the answer was lost, so the device goes on with what it has, also after it asked again."""
    async with open_testbed("embedded", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        lost = await refreshed(testbed, device)
        await testbed.settled()
        for _ in range(3):
            assert await answer(testbed, device) == wire.ACCEPTED
        newest = await refreshed(testbed, device)
        await testbed.settled()  # whoever knocks while the broker is being told is sent away without an answer
        assert await answer(testbed, lost) in REFUSED
        assert await answer(testbed, device) == wire.ACCEPTED
        assert await answer(testbed, newest) == wire.ACCEPTED
        await testbed.settled()
        assert await answer(testbed, device) in REFUSED


async def test_a_first_use_over_http_cuts_the_old_session(tmp_path: Path) -> None:
    """Embedded: the session of the old token is closed although the new one has not connected."""
    async with open_testbed("embedded", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as old:
            new = await refreshed(testbed, device)
            row = await testbed.store.read(lambda view: token_sql.by_secret(view, new.token))
            assert row
            await testbed.store.write(lambda tx: devices.use(tx, row.id))
            await old.closed()
        await testbed.settled()
        assert await answer(testbed, new) == wire.ACCEPTED


@on_mosquitto
async def test_a_broker_with_one_password_holds_the_new_one(kind: str, tmp_path: Path) -> None:
    """Mosquitto: the old session is cut, the new token connects; the old one is good in the registry, over HTTP."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as old:
            new = await refreshed(testbed, device)
            await old.closed()
        await testbed.settled()
        async with testbed.join(new):
            assert await answer(testbed, device) in REFUSED
        assert (await state(testbed, device), await state(testbed, new)) == ("active", "active"), "nothing was said yet"


@on_mosquitto
async def test_the_first_message_of_the_new_token_ends_the_old_one(kind: str, tmp_path: Path) -> None:
    """Mosquitto: a heartbeat over MQTT is enough; the holder of the old one can neither stay nor take its place."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        new = await refreshed(testbed, device)
        await testbed.settled()
        async with testbed.join(new) as client:
            await _expected(testbed, new)
            await client.publish(new.topic("heartbeat"), heartbeat_payload(80))
            await eventually(lambda: _is(testbed, device, "revoked"), "the old token is revoked")
            await testbed.settled()
            await client.ping()
        assert await state(testbed, new) == "active"
        assert await testbed.events(device, "token.%") == ["token.refreshed", "token.revoked"]


@on_mosquitto
async def test_messages_of_the_old_token_are_no_first_use_of_the_new_one(kind: str, tmp_path: Path) -> None:
    """Heartbeats that wait at the broker, its will and an online that is retained: the answer may have been lost."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        will = wire.Will(device.topic("status"), b'{"status":"offline"}', retain=True)
        async with testbed.join(device, will=will) as old:
            await old.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            testbed.proxy.stall()
            for battery in range(40):
                await old.publish(device.topic("heartbeat"), heartbeat_payload(battery))
            new = await refreshed(testbed, device)
            await old.closed()
        testbed.proxy.resume()
        await _expected(testbed, new)
        assert len(await testbed.stored_batteries()) == 40
        async with testbed.join(new) as client:
            await client.publish(new.topic("status"), b'{"status":"online"}', retain=True)
            await client.publish(new.topic("status"), b'{"status":"offline"}', retain=True)
            assert await testbed.connection.barrier.passed(GUARD_SECONDS), "its word was taken"
            await _topics_are_cleared(testbed, new)
            assert (await state(testbed, device), await state(testbed, new)) == ("active", "active")
            await client.publish(new.topic("heartbeat"), heartbeat_payload(90))
            await eventually(lambda: _is(testbed, device, "revoked"), "the old token is revoked")


async def _topics_are_cleared(testbed: MqttTestbed, device: Device) -> None:
    """The gateway clears them all, as at a broker that was away for long; its own messages come back to it."""

    def mark(tx: Tx) -> None:
        row = device_sql.by_id(tx, device.id)
        assert row
        health_sql.forget_broker(tx, row.pk)
        outbox_sql.mark_topic(tx, row.pk, outbox_sql.STATUS)

    await testbed.store.write(mark)
    await testbed.settled()
    assert await testbed.connection.barrier.passed(GUARD_SECONDS), "what it has published has come back"


async def _expected(testbed: MqttTestbed, new: Device) -> None:
    """Wait until the next message of the device counts as a use of its new token."""
    first_uses = testbed.access_syncer.access.first_uses
    assert first_uses
    await eventually(lambda: new.id in first_uses.waiting, "a mark came back after the new password")


async def _is(testbed: MqttTestbed, device: Device, wanted: str) -> bool:
    return await state(testbed, device) == wanted


@on_mosquitto
async def test_a_reset_is_fetched_with_the_new_token(kind: str, tmp_path: Path) -> None:
    """Mosquitto: both are good for the reset alone; the retained command waits for the one that gets in."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        new = await refreshed(testbed, device)
        await testbed.reset(device)
        await testbed.settled()
        async with testbed.join(new) as client:
            await client.subscribe(new.topic("commands/factory_reset"))
            assert (await client.read_publish()).payload
        assert (await state(testbed, device), await state(testbed, new)) == ("reset_only", "reset_only")

        async def is_in_sync() -> bool:
            return await testbed.is_in_sync()

        await eventually(is_in_sync, "the broker holds the reset")
