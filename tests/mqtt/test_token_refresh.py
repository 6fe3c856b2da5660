"""A refreshed token at the broker: the old one lasts until the new one is used (contract, section 2)."""

from dataclasses import replace
from pathlib import Path

from gateway.domain import devices
from gateway.store import View, token_sql
from tests.mqtt.support import Device, MovedClock, Site, beat, on_mosquitto, site
from tests.support import wire
from tests.support.wait import GUARD_SECONDS, eventually

REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}


async def refreshed(place: Site, device: Device) -> Device:
    """The device with the token that it gets for its own, a minute after it got one last."""
    clock = place.store.context.clock
    assert isinstance(clock, MovedClock)
    clock.ahead_ms += 60_000
    row = await place.store.read(lambda view: token_sql.by_secret(view, device.token))
    assert row
    new = await place.store.write(lambda tx: devices.refresh(tx, place.project_id, device.id, row.id))
    return replace(device, token=new.device_token)


async def answer(place: Site, device: Device) -> int:
    """What the broker answers to this device's CONNECT."""
    async with wire.Wire.open("127.0.0.1", place.broker.port) as client:
        return await client.connect(device.id, device.id, device.mqtt_password)


async def state(place: Site, device: Device) -> str:
    """What the registry says of its token."""

    def read(view: View) -> str:
        row = token_sql.by_secret(view, device.token)
        return "unknown" if row is None else str(row.state)

    return await place.store.read(read)


async def test_the_old_session_lives_until_the_new_token_connects(tmp_path: Path) -> None:
    """Embedded: both tokens connect; the first connect of the new one takes over, stays, and ends the old one."""
    async with site("embedded", tmp_path) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as old:
            new = await refreshed(place, device)
            await place.settled()
            await old.ping()
            async with place.join(new) as client:
                await old.closed()
                await place.settled()
                await client.ping()
                assert await state(place, device) == "revoked"
                assert await answer(place, device) in REFUSED
                await client.ping()
        assert await place.events(device, "token.%") == ["token.refreshed", "token.revoked"]


async def test_the_old_token_comes_back_as_often_as_it_likes(tmp_path: Path) -> None:
    """Embedded: the answer was lost, so the device goes on with what it has, also after it asked again."""
    async with site("embedded", tmp_path) as place:
        await place.start()
        device = await place.bound()
        lost = await refreshed(place, device)
        await place.settled()
        for _ in range(3):
            assert await answer(place, device) == wire.ACCEPTED
        newest = await refreshed(place, device)
        await place.settled()  # whoever knocks while the broker is being told is sent away without an answer
        assert await answer(place, lost) in REFUSED
        assert await answer(place, device) == wire.ACCEPTED
        assert await answer(place, newest) == wire.ACCEPTED
        await place.settled()
        assert await answer(place, device) in REFUSED


async def test_a_first_use_over_http_cuts_the_old_session(tmp_path: Path) -> None:
    """Embedded: the session of the old token is closed although the new one has not connected."""
    async with site("embedded", tmp_path) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as old:
            new = await refreshed(place, device)
            row = await place.store.read(lambda view: token_sql.by_secret(view, new.token))
            assert row
            await place.store.write(lambda tx: devices.use(tx, row.id))
            await old.closed()
        await place.settled()
        assert await answer(place, new) == wire.ACCEPTED


@on_mosquitto
async def test_where_the_broker_holds_one_password_it_is_the_new_one(kind: str, tmp_path: Path) -> None:
    """Mosquitto: the old session is cut, the new token connects; the old one is good in the registry, over HTTP."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        async with place.join(device) as old:
            new = await refreshed(place, device)
            await old.closed()
        await place.settled()
        async with place.join(new):
            assert await answer(place, device) in REFUSED
        assert (await state(place, device), await state(place, new)) == ("active", "active"), "nothing was said yet"


@on_mosquitto
async def test_the_first_message_of_the_new_token_ends_the_old_one(kind: str, tmp_path: Path) -> None:
    """Mosquitto: a heartbeat over MQTT is enough; the holder of the old one can neither stay nor take its place."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        new = await refreshed(place, device)
        await place.settled()
        async with place.join(new) as client:
            await _expected(place, new)
            await client.publish(new.topic("heartbeat"), beat(80))
            await eventually(lambda: _is(place, device, "revoked"), "the old token is revoked")
            await place.settled()
            await client.ping()
        assert await state(place, new) == "active"
        assert await place.events(device, "token.%") == ["token.refreshed", "token.revoked"]


@on_mosquitto
async def test_what_the_old_token_said_is_no_use_of_the_new_one(kind: str, tmp_path: Path) -> None:
    """Heartbeats that wait at the broker, its will and an online that is retained: the answer may have been lost."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        will = wire.Will(device.topic("status"), b'{"status":"offline"}', retain=True)
        async with place.join(device, will=will) as old:
            await old.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            place.proxy.stall()
            for battery in range(40):
                await old.publish(device.topic("heartbeat"), beat(battery))
            new = await refreshed(place, device)
            await old.closed()
        place.proxy.resume()
        await _expected(place, new)
        assert len(await place.beats()) == 40
        async with place.join(new) as client:
            await client.publish(new.topic("status"), b'{"status":"online"}', retain=True)
            await client.publish(new.topic("status"), b'{"status":"offline"}', retain=True)
            assert await place.connection.barrier.passed(GUARD_SECONDS), "its word was taken"
            assert (await state(place, device), await state(place, new)) == ("active", "active")
            await client.publish(new.topic("heartbeat"), beat(90))
            await eventually(lambda: _is(place, device, "revoked"), "the old token is revoked")


async def _expected(place: Site, new: Device) -> None:
    """Wait until the next message of the device counts as a use of its new token."""
    first_uses = place.access_syncer.access.first_uses
    assert first_uses
    await eventually(lambda: new.id in first_uses.waiting, "a mark came back after the new password")


async def _is(place: Site, device: Device, wanted: str) -> bool:
    return await state(place, device) == wanted


@on_mosquitto
async def test_a_reset_is_fetched_with_the_new_token(kind: str, tmp_path: Path) -> None:
    """Mosquitto: both are good for the reset alone; the retained command waits for the one that gets in."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        new = await refreshed(place, device)
        await place.reset(device)
        await place.settled()
        async with place.join(new) as client:
            await client.subscribe(new.topic("commands/factory_reset"))
            assert (await client.read_publish()).payload
        assert (await state(place, device), await state(place, new)) == ("reset_only", "reset_only")

        async def in_step() -> bool:
            return await place.in_step()

        await eventually(in_step, "the broker holds the reset")
