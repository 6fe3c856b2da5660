"""A deleted device on the broker: cut, kept out, and nothing of it stays retained (contract, section 3)."""

from pathlib import Path

from gateway.core.command_types import CommandType
from gateway.domain import devices
from gateway.mqtt.reconciler import compare
from gateway.store.device_sql import DeviceRecord
from tests.mqtt.support import Device, Site, beat, on_every_broker, site
from tests.support import wire
from tests.support.wait import eventually

REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}
STATUSES = "devices/+/status"
OFFLINE = b'{"status":"offline"}'


async def delete(place: Site, device: Device) -> DeviceRecord:
    """Delete it."""
    return await place.store.write(lambda tx: devices.delete(tx, place.project_id, device.id, "key_test"))


async def restore(place: Site, device: Device) -> DeviceRecord:
    """Bring it back."""
    return await place.store.write(lambda tx: devices.restore(tx, place.project_id, device.id, "key_test"))


async def leave_status(place: Site, *devices: Device) -> None:
    """Have the broker hold a status of these."""
    async with place.admin("other") as client:
        for device in devices:
            await client.publish(device.topic("status"), OFFLINE, retain=True)


async def cleared(place: Site) -> None:
    """Wait until the broker holds no status."""

    async def is_clear() -> bool:
        return not await place.retained(STATUSES)

    await eventually(is_clear, "the status was cleared")


@on_every_broker
async def test_what_a_revoked_device_had_retained_is_cleared(kind: str, tmp_path: Path) -> None:
    """A heartbeat and acknowledgements would come again at each connect, long after the device's binding has ended."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        command = await place.command(device)
        word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
        async with place.join(device) as client:
            await client.publish(device.topic("heartbeat"), b'{"battery_percent": 30}', retain=True)
            for each in CommandType:
                await client.publish(device.topic(f"commands/{each}/ack"), word, retain=True)
        await eventually(lambda: _is_executed(place), "the gateway has heard all of it")
        await place.unbind(device)

        async def only_its_status() -> bool:
            return list(await place.retained("devices/#")) == [device.topic("status")]

        await eventually(only_its_status, "all but the status is cleared")
        await place.settled()
        codes = {row["code"] for row in await place.rows("SELECT code FROM refusals")}
        assert codes <= {"wrong_type", "retained_heartbeat"}, "its own words alone were refused"


async def _is_executed(place: Site) -> bool:
    return [row[0] for row in await place.rows("SELECT status FROM commands")] == ["executed"]


@on_every_broker
async def test_a_deleted_device_is_cut_and_leaves_no_status(kind: str, tmp_path: Path) -> None:
    """Its session is closed, its token refused, what it had retained is gone; another device does not notice."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device, other = await place.bound(), await place.bound("SN-2")
        async with place.join(device) as client, place.join(other) as stays:
            await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            await delete(place, device)
            await client.closed()
            await stays.ping()
        async with wire.Wire.open("127.0.0.1", place.broker.port) as knocking:
            assert await knocking.connect(device.id, device.id, device.mqtt_password) in REFUSED
        await cleared(place)
        await place.settled()
        assert await place.rows("SELECT * FROM refusals") == []
        assert (await place.events(device))[-1] == "device.deleted"


async def test_a_session_that_is_cut_for_it_has_no_last_word(tmp_path: Path) -> None:
    """Embedded: its last will is not published (Mosquitto publishes none either), and its status is cleared."""
    async with site("embedded", tmp_path) as place:
        await place.start()
        device = await place.bound()
        will = wire.Will(device.topic("status"), OFFLINE, retain=True)
        async with place.admin() as witness, place.join(device, will=will) as client:
            await witness.subscribe(device.topic("status"), "witness/mark")
            await delete(place, device)
            await client.closed()
            assert (await witness.read_publish()).payload == b""
            await place.settled()
            await witness.publish("witness/mark", b"that was all")
            assert await witness.read_until("witness/mark") == []
        await cleared(place)
        assert await place.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_what_was_deleted_while_the_gateway_was_away_is_cleared(kind: str, tmp_path: Path) -> None:
    """Its status and its open command; another's stay."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device, other = await place.bound(), await place.bound("SN-2")
        await place.command(device)
        await place.settled()
        await leave_status(place, device, other)
        await place.stop()
        await delete(place, device)
        await place.start()
        assert set(await place.retained(STATUSES)) == {other.topic("status")}
        assert await place.in_step()


@on_every_broker
async def test_a_status_that_comes_back_is_cleared_again(kind: str, tmp_path: Path) -> None:
    """A broker that lost the clearing, or a client that publishes it: live, and while the gateway is away."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        await delete(place, device)
        await place.settled()
        await leave_status(place, device)
        await cleared(place)
        await place.stop()
        await leave_status(place, device)
        await place.start()
        await cleared(place)


@on_every_broker
async def test_a_device_that_is_back_keeps_its_status(kind: str, tmp_path: Path) -> None:
    """Restored before the gateway came to clear it: what the device says then is its own."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        await leave_status(place, device)
        await place.stop()
        await delete(place, device)
        await restore(place, device)
        await place.start()
        assert await place.retained(STATUSES) == {device.topic("status"): OFFLINE}


@on_every_broker
async def test_a_deleted_device_is_not_heard(kind: str, tmp_path: Path) -> None:
    """Where a broker still takes its heartbeats and acknowledgements they are refused, kept, and change nothing."""
    async with site(kind, tmp_path) as place:
        await place.start()
        device = await place.bound()
        command = await place.command(device)
        await delete(place, device)
        told = await place.events(device)
        async with place.admin() as client:
            await client.publish(device.topic("heartbeat"), beat(50))
            word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
            await client.publish(device.topic("commands/reboot/ack"), word)

            async def refused() -> bool:
                return len(await place.rows("SELECT * FROM refusals WHERE code = 'unknown_device'")) == 2

            await eventually(refused, "both were refused")
        assert await place.beats() == []
        assert await place.events(device) == told


async def test_where_the_broker_tells_not_what_it_holds(tmp_path: Path) -> None:
    """Section 3: no retained messages for a wildcard there, so the statuses of lately deleted devices go unseen."""
    async with site("mosquitto-3.1.1", tmp_path) as place:
        lately, restored = await place.bound(), await place.bound("SN-2")
        for device in (lately, restored):
            await delete(place, device)
        await restore(place, restored)
        await place.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        for trustworthy, expected in ((True, []), (False, [lately.pk])):
            await place.store.write(
                lambda tx, told=trustworthy: compare(tx, place.topics, {}, trustworthy=told)  # type: ignore[misc]
            )
            rows = await place.rows("SELECT device_pk FROM outbox WHERE kind = 'topic' AND detail = 'status'")
            assert [row[0] for row in rows] == expected
