"""A real RabbitMQ that asks the gateway: what a revocation ends there, and the comparison where no wildcard tells."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.domain import epoch
from gateway.store import account_sql, command_sql
from tests.broker.support import REFUSED, answer
from tests.mqtt.devices import Device, heartbeat_payload
from tests.mqtt.support import MqttTestbed, open_testbed
from tests.mqtt.test_lineage import Snapshot
from tests.support import wire
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually


@pytest.fixture
async def testbed(rabbitmq: RabbitMq, tmp_path: Path) -> AsyncIterator[MqttTestbed]:
    """A gateway beside RabbitMQ, at work."""
    async with open_testbed("rabbitmq", tmp_path, node=rabbitmq) as made:
        await made.start()
        yield made


async def bound(testbed: MqttTestbed, serial: str = "SN-1") -> Device:
    """A bound device, once the broker is in step: as after the answer of the API."""
    device = await testbed.bound(serial)
    await testbed.settled()
    return device


async def held(testbed: MqttTestbed, topic: str) -> bytes | None:
    """What is retained there, for who asks by the topic's full name."""
    async with testbed.admin() as client:
        await client.subscribe("marks/end", topic)
        await client.publish("marks/end", b"")
        messages = await client.read_until("marks/end")
    return messages[0].payload if messages else None


async def test_a_revoked_token_is_cut_and_stays_out(testbed: MqttTestbed) -> None:
    """RabbitMQ closes the session, its will is not sent, the next CONNECT is refused; others do not notice."""
    device, other = await bound(testbed), await bound(testbed, "SN-2")
    will = wire.Will(device.topic("status"), b'{"status":"will"}', retain=True)
    async with testbed.join(device, will=will) as client, testbed.join(other) as witness:
        await testbed.unbind(device)
        began = asyncio.get_running_loop().time()
        await client.closed()
        print(f"rabbitmq: cut {asyncio.get_running_loop().time() - began:.3f} s after the commit")  # noqa: T201
        await witness.ping()
        assert await answer(testbed, device) in REFUSED
    await testbed.settled()
    assert await held(testbed, device.topic("status")) == b'{"status":"offline"}'
    assert (await testbed.ready())["access"] == {"managed_by": "http", "error": None}


async def test_a_restore_clears_what_the_lost_registry_published(testbed: MqttTestbed) -> None:
    """No wildcard tells what it left: each command topic of each device is cleared once, and open ones come again."""
    kept, lost = await bound(testbed), await bound(testbed, "SN-2")
    reset = await testbed.reset(kept)
    await testbed.settled()
    snapshot = Snapshot(testbed)
    await testbed.reset(lost)
    await testbed.command(await bound(testbed, "SN-3"), "reboot", ttl_seconds=600)
    await testbed.settled()
    topics = [device.topic("commands/factory_reset") for device in (kept, lost)]
    assert all([await held(testbed, topic) for topic in topics])
    await testbed.stop()
    snapshot.put_back()
    await testbed.store.write(lambda tx: epoch.begin(tx, epoch.RESTORED))
    await testbed.start()
    assert json.loads(await held(testbed, topics[0]) or b"{}")["id"] == reset.id
    assert await held(testbed, topics[1]) is None


async def test_subscriptions_and_queued_messages_end_with_the_token(testbed: MqttTestbed, rabbitmq: RabbitMq) -> None:
    """The queue of a persistent session is deleted: what waited for the owner before never reaches the next one."""
    device = await bound(testbed)
    topic = device.topic("commands/reboot")
    async with testbed.join(device, clean=False) as client:
        await client.subscribe(topic)
        await client.disconnect()
    async with testbed.admin() as admin:
        await admin.publish(topic, b"meant for the owner before")
    assert f"mqtt-subscription-{device.id}qos1" in rabbitmq.queues()
    await testbed.unbind(device)
    await testbed.settled()
    assert f"mqtt-subscription-{device.id}qos1" not in rabbitmq.queues()
    new = await testbed.bound_again(device)
    await testbed.settled()
    async with testbed.join(new, clean=False) as client, testbed.admin() as admin:
        await client.subscribe(topic)
        await admin.publish(topic, b"for the new owner")
        assert (await client.read_publish()).payload == b"for the new owner"


async def test_a_reset_only_token_is_accepted(testbed: MqttTestbed) -> None:
    """`reset_only` admits the device over MQTT until the reset is cancelled; a reset ends no session."""
    device = await bound(testbed)
    async with testbed.join(device) as client:
        command = await testbed.reset(device)
        await testbed.settled()
        await client.ping()
        await client.subscribe(device.topic("commands/factory_reset"))
        message = await client.read_publish()
        assert message.retain
        assert command.id.encode() in message.payload
        await testbed.cancel(device, command)
        await client.closed()
    await testbed.settled()
    assert await answer(testbed, device) in REFUSED


async def test_a_session_from_before_a_restart_is_found(testbed: MqttTestbed) -> None:
    """A gateway that knows nothing of a session any more, and has no note to cut it, compares and cuts it."""
    device, other = await bound(testbed), await bound(testbed, "SN-2")
    async with testbed.join(device) as client, testbed.join(other) as witness:
        await _shown(testbed, device, other)
        await testbed.stop()
        await testbed.unbind(device)
        await testbed.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        await testbed.start()
        await client.closed()
        await witness.ping()


async def _shown(testbed: MqttTestbed, *devices: Device) -> None:
    """RabbitMQ lists a connection only a moment after it began."""

    async def listed() -> bool:
        answer = {row["user"] for row in await asyncio.to_thread(_connections, testbed)}
        return {device.id for device in devices} <= answer

    await eventually(listed, "RabbitMQ lists the connections")


def _connections(testbed: MqttTestbed) -> list[dict[str, str]]:
    with testbed.broker.node.api() as api:  # type: ignore[union-attr] # every test here has that node
        rows: list[dict[str, str]] = api.get("/api/connections", params={"columns": "user"}).json()
    return [row for row in rows if "user" in row]


async def test_new_connections_are_refused_while_the_gateway_is_down(testbed: MqttTestbed) -> None:
    """RabbitMQ cannot ask and refuses; when the gateway is back the same device is admitted."""
    device = await bound(testbed)
    await testbed.broker.stop()
    assert await answer(testbed, device) != wire.ACCEPTED
    await testbed.broker.start()
    async with testbed.join(device) as client:
        await client.publish(device.topic("heartbeat"), heartbeat_payload(80))
        await eventually(testbed.stored_batteries, "the heartbeat is stored")


async def test_retained_messages_lost_by_the_broker_are_republished_without_a_scan(testbed: MqttTestbed) -> None:
    """No wildcard tells what is retained. Open commands are asked for by name; those that lack are published again."""
    device, other = await bound(testbed), await bound(testbed, "SN-2")
    command = await testbed.reset(device)
    await testbed.reset(other)
    await testbed.settled()
    topic = device.topic("commands/factory_reset")
    async with testbed.admin() as admin:
        await admin.publish(topic, b"", retain=True)
    assert await held(testbed, topic) is None
    await testbed.stop()
    with capture_logs() as logs:
        await testbed.start()
    [compared] = [entry for entry in logs if entry["event"] == "broker.reconciled"]
    assert (compared["wildcard_retained"], compared["asked"], compared["marked"]) == (False, 2, 1)
    assert [entry["topic"] for entry in logs if entry["event"] == "command.published"] == [topic]
    found = await held(testbed, topic)
    assert found == command_sql.payload(command).model_dump_json().encode()


async def test_obsolete_retained_messages_are_cleared_without_a_scan(testbed: MqttTestbed) -> None:
    """A command that came back although it was closed lately is cleared at a connect, without being seen."""
    device = await bound(testbed)
    command = await testbed.reset(device)
    await testbed.settled()
    topic = device.topic("commands/factory_reset")
    old = await held(testbed, topic)
    assert old
    await testbed.cancel(device, command)
    await testbed.settled()
    assert await held(testbed, topic) is None
    async with testbed.admin() as admin:
        await admin.publish(topic, old, retain=True)
    await testbed.stop()
    await testbed.start()
    assert await held(testbed, topic) is None


@pytest.mark.parametrize("asked", ["publish", "subscribe"])
async def test_a_refused_operation_closes_the_connection(testbed: MqttTestbed, asked: str) -> None:
    """RabbitMQ has no other answer; the same device may come back at once."""
    device, other = await bound(testbed), await bound(testbed, "SN-2")
    async with testbed.join(device) as client:
        packet = {
            "publish": wire.publish_packet(other.topic("heartbeat"), b"x"),
            "subscribe": wire.subscribe_packet(other.topic("commands/reboot")),
        }[asked]
        await client.send(packet)
        print(await client.closed())  # noqa: T201 - shown when it fails
    async with testbed.join(device) as client:
        await client.ping()


async def test_a_connected_device_is_refused_while_the_gateway_is_away(testbed: MqttTestbed) -> None:
    """It stays connected, and what it publishes cannot be judged: RabbitMQ ends the connection, nothing is lost."""
    device = await bound(testbed)
    async with testbed.join(device) as client:
        await client.ping()
        await testbed.broker.stop()
        await client.ping()
        await client.send(wire.publish_packet(device.topic("heartbeat"), heartbeat_payload(80)))
        assert wire.Kind.PUBACK not in [packet.kind for packet in await client.closed()]
    await testbed.broker.start()
    assert await testbed.stored_batteries() == []


async def test_a_dot_in_a_routing_key_is_a_topic_level(testbed: MqttTestbed) -> None:
    """An integrator hears `device.bound` as two levels, by the filter that it has everywhere."""
    password = await testbed.store.write(lambda tx: account_sql.create(tx, "integrator"))
    async with wire.Wire.open("127.0.0.1", testbed.broker.port) as integrator, testbed.admin() as admin:
        assert await integrator.connect("integrator", "integrator", password) == wire.ACCEPTED
        await integrator.subscribe("devices/+/events/#")
        await admin.publish("devices/dev_A/events/device.bound", b"x")
        assert (await integrator.read_publish()).topic == "devices/dev_A/events/device/bound"
