"""A deleted device on the broker: cut, kept out, and nothing of it stays retained (contract, section 3)."""

from pathlib import Path

from gateway.core.command_types import CommandType
from gateway.domain import devices
from gateway.store.device_sql import DeviceRecord
from tests.mqtt.brokers import MosquittoUnderTest
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support import wire
from tests.support.wait import eventually

REFUSED = {wire.NOT_AUTHORISED, wire.BAD_CREDENTIALS}
STATUSES = "devices/+/status"
ONLINE = b'{"status":"online"}'
OFFLINE = b'{"status":"offline"}'
WRITE_ONLY = """
user gateway
topic write #
"""


async def delete(testbed: MqttTestbed, device: Device) -> DeviceRecord:
    """Delete it."""
    return await testbed.store.write(lambda tx: devices.delete(tx, testbed.project_id, device.id, "key_test"))


async def restore(testbed: MqttTestbed, device: Device) -> DeviceRecord:
    """Bring it back."""
    return await testbed.store.write(lambda tx: devices.restore(tx, testbed.project_id, device.id, "key_test"))


async def leave_status(testbed: MqttTestbed, *devices: Device) -> None:
    """Have the broker hold a status of these."""
    async with testbed.admin("other") as client:
        for device in devices:
            await client.publish(device.topic("status"), OFFLINE, retain=True)


async def cleared(testbed: MqttTestbed) -> None:
    """Wait until the broker holds no status."""

    async def is_clear() -> bool:
        return not await testbed.retained(STATUSES)

    await eventually(is_clear, "the status was cleared")


@on_every_broker
async def test_the_retained_status_of_a_revoked_device_is_cleared(kind: str, tmp_path: Path) -> None:
    """A heartbeat and acknowledgements would come again at each connect, long after the device's binding has ended."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.command(device)
        word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
        async with testbed.join(device) as client:
            await client.publish(device.topic("heartbeat"), b'{"battery_percent": 30}', retain=True)
            for each in CommandType:
                await client.publish(device.topic(f"commands/{each}/ack"), word, retain=True)
        await eventually(lambda: _is_executed(testbed), "the gateway has heard all of it")
        await testbed.unbind(device)

        async def only_its_status() -> bool:
            return list(await testbed.retained("devices/#")) == [device.topic("status")]

        await eventually(only_its_status, "all but the status is cleared")
        await testbed.settled()
        codes = {row["code"] for row in await testbed.rows("SELECT code FROM refusals")}
        assert codes <= {"wrong_type", "retained_heartbeat"}, "its own words alone were refused"


@on_every_broker
async def test_an_online_status_of_an_ended_binding_becomes_offline(kind: str, tmp_path: Path) -> None:
    """The device published it after the gateway had written the offline status, and before the broker cut it."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        async with testbed.join(device) as client:
            await client.publish(device.topic("status"), ONLINE, retain=True)
        await testbed.unbind(device)
        await testbed.settled()
        async with testbed.admin("other") as client:  # as the broker would, to which the device is still known
            await client.publish(device.topic("status"), ONLINE, retain=True)

        async def is_offline() -> bool:
            return await testbed.retained(STATUSES) == {device.topic("status"): OFFLINE}

        await eventually(is_offline, "the broker holds an offline status")


async def _is_executed(testbed: MqttTestbed) -> bool:
    return [row[0] for row in await testbed.rows("SELECT status FROM commands")] == ["executed"]


@on_every_broker
async def test_a_deleted_device_is_cut_and_leaves_no_status(kind: str, tmp_path: Path) -> None:
    """Its session is closed, its token refused, what it had retained is gone; another device does not notice."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        async with testbed.join(device) as client, testbed.join(other) as stays:
            await client.publish(device.topic("status"), b'{"status":"online"}', retain=True)
            await delete(testbed, device)
            await client.closed()
            await stays.ping()
        async with wire.Wire.open("127.0.0.1", testbed.broker.port) as knocking:
            assert await knocking.connect(device.id, device.id, device.mqtt_password) in REFUSED
        await cleared(testbed)
        await testbed.settled()
        assert await testbed.rows("SELECT * FROM refusals") == []
        assert (await testbed.events(device))[-1] == "device.deleted"


async def test_a_session_cut_by_a_deletion_publishes_no_will(tmp_path: Path) -> None:
    """Embedded: its last will is not published (Mosquitto publishes none either), and its status is cleared."""
    async with open_testbed("embedded", tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        will = wire.Will(device.topic("status"), OFFLINE, retain=True)
        async with testbed.admin() as witness, testbed.join(device, will=will) as client:
            await witness.subscribe(device.topic("status"), "witness/mark")
            await delete(testbed, device)
            await client.closed()
            assert (await witness.read_publish()).payload == b""
            await testbed.settled()
            await witness.publish("witness/mark", b"that was all")
            assert await witness.read_until("witness/mark") == []
        await cleared(testbed)
        assert await testbed.rows("SELECT * FROM refusals") == []


@on_every_broker
async def test_devices_deleted_during_an_outage_are_cleared(kind: str, tmp_path: Path) -> None:
    """Its status and its open command; another's stay."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        await testbed.command(device)
        await testbed.settled()
        await leave_status(testbed, device, other)
        await testbed.stop()
        await delete(testbed, device)
        await testbed.start()
        assert set(await testbed.retained(STATUSES)) == {other.topic("status")}
        assert await testbed.is_in_sync()


@on_every_broker
async def test_a_status_that_comes_back_is_cleared_again(kind: str, tmp_path: Path) -> None:
    """A broker that lost the clearing, or a client that publishes it: live, and while the gateway is away."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await delete(testbed, device)
        await testbed.settled()
        await leave_status(testbed, device)
        await cleared(testbed)
        await testbed.stop()
        await leave_status(testbed, device)
        await testbed.start()
        await cleared(testbed)


@on_every_broker
async def test_a_device_that_is_back_keeps_its_status(kind: str, tmp_path: Path) -> None:
    """Restored before the gateway came to clear it: what the device says then is its own."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await leave_status(testbed, device)
        await testbed.stop()
        await delete(testbed, device)
        await restore(testbed, device)
        await testbed.start()
        assert await testbed.retained(STATUSES) == {device.topic("status"): OFFLINE}


@on_every_broker
async def test_messages_of_a_deleted_device_are_refused(kind: str, tmp_path: Path) -> None:
    """Where a broker still takes its heartbeats and acknowledgements they are refused, kept, and change nothing."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        command = await testbed.command(device)
        await delete(testbed, device)
        told = await testbed.events(device)
        async with testbed.admin() as client:
            await client.publish(device.topic("heartbeat"), heartbeat_payload(50))
            word = b'{"command_id": "%s", "status": "executed"}' % command.id.encode()
            await client.publish(device.topic("commands/reboot/ack"), word)

            async def refused() -> bool:
                return len(await testbed.rows("SELECT * FROM refusals WHERE code = 'unknown_device'")) == 2

            await eventually(refused, "both were refused")
        assert await testbed.stored_batteries() == []
        assert await testbed.events(device) == told


async def test_without_retained_wildcards_the_status_is_cleared_by_name(tmp_path: Path) -> None:
    """Section 3: no retained messages for a wildcard there, so the statuses of lately deleted devices go unseen."""
    async with open_testbed("mosquitto-3.1.1", tmp_path) as testbed:
        assert isinstance(testbed.broker, MosquittoUnderTest)
        await testbed.broker.set_rights(WRITE_ONLY)
        lately, restored = await testbed.bound(), await testbed.bound("SN-2")
        for device in (lately, restored):
            await delete(testbed, device)
        await restore(testbed, restored)
        await testbed.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        await leave_status(testbed, lately, restored)
        await testbed.start()

        async def is_cleared() -> bool:
            return list(await testbed.retained(STATUSES)) == [restored.topic("status")]

        await eventually(is_cleared, "the status of the deleted device was cleared")
