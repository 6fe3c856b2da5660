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
from tests.mqtt.support import Device, Site, beat, site
from tests.mqtt.test_lineage import Snapshot
from tests.support import wire
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually


@pytest.fixture
async def place(rabbitmq: RabbitMq, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway beside RabbitMQ, at work."""
    async with site("rabbitmq", tmp_path, node=rabbitmq) as made:
        await made.start()
        yield made


async def bound(place: Site, serial: str = "SN-1") -> Device:
    """A bound device, once the broker is in step: as after the answer of the API."""
    device = await place.bound(serial)
    await place.settled()
    return device


async def held(place: Site, topic: str) -> bytes | None:
    """What is retained there, for who asks by the topic's full name."""
    async with place.admin() as client:
        await client.subscribe("marks/end", topic)
        await client.publish("marks/end", b"")
        messages = await client.read_until("marks/end")
    return messages[0].payload if messages else None


async def test_a_revoked_token_is_cut_and_stays_out(place: Site) -> None:
    """RabbitMQ closes the session, its will is not sent, the next CONNECT is refused; others do not notice."""
    device, other = await bound(place), await bound(place, "SN-2")
    will = wire.Will(device.topic("status"), b'{"status":"will"}', retain=True)
    async with place.join(device, will=will) as client, place.join(other) as witness:
        await place.unbind(device)
        began = asyncio.get_running_loop().time()
        await client.closed()
        print(f"rabbitmq: cut {asyncio.get_running_loop().time() - began:.3f} s after the commit")  # noqa: T201
        await witness.ping()
        assert await answer(place, device) in REFUSED
    await place.settled()
    assert await held(place, device.topic("status")) == b'{"status":"offline"}'
    assert (await place.ready())["access"] == {"managed_by": "http", "error": None}


async def test_a_restore_clears_what_the_lost_registry_published(place: Site) -> None:
    """No wildcard tells what it left: each command topic of each device is cleared once, and open ones come again."""
    kept, lost = await bound(place), await bound(place, "SN-2")
    reset = await place.reset(kept)
    await place.settled()
    snapshot = Snapshot(place)
    await place.reset(lost)
    await place.command(await bound(place, "SN-3"), "reboot", ttl_seconds=600)
    await place.settled()
    topics = [device.topic("commands/factory_reset") for device in (kept, lost)]
    assert all([await held(place, topic) for topic in topics])
    await place.stop()
    snapshot.put_back()
    await place.store.write(lambda tx: epoch.begin(tx, epoch.RESTORED))
    await place.start()
    assert json.loads(await held(place, topics[0]) or b"{}")["id"] == reset.id
    assert await held(place, topics[1]) is None


async def test_subscriptions_and_queued_messages_end_with_the_token(place: Site, rabbitmq: RabbitMq) -> None:
    """The queue of a persistent session is deleted: what waited for the owner before never reaches the next one."""
    device = await bound(place)
    topic = device.topic("commands/reboot")
    async with place.join(device, clean=False) as client:
        await client.subscribe(topic)
        await client.disconnect()
    async with place.admin() as admin:
        await admin.publish(topic, b"meant for the owner before")
    assert f"mqtt-subscription-{device.id}qos1" in rabbitmq.queues()
    await place.unbind(device)
    await place.settled()
    assert f"mqtt-subscription-{device.id}qos1" not in rabbitmq.queues()
    new = await place.bound_again(device)
    await place.settled()
    async with place.join(new, clean=False) as client, place.admin() as admin:
        await client.subscribe(topic)
        await admin.publish(topic, b"for the new owner")
        assert (await client.read_publish()).payload == b"for the new owner"


async def test_a_token_that_waits_for_its_reset_gets_in(place: Site) -> None:
    """`reset_only` admits the device over MQTT until the reset is cancelled; a reset ends no session."""
    device = await bound(place)
    async with place.join(device) as client:
        command = await place.reset(device)
        await place.settled()
        await client.ping()
        await client.subscribe(device.topic("commands/factory_reset"))
        message = await client.read_publish()
        assert message.retain
        assert command.id.encode() in message.payload
        await place.cancel(device, command)
        await client.closed()
    await place.settled()
    assert await answer(place, device) in REFUSED


async def test_a_session_from_before_a_restart_is_found(place: Site) -> None:
    """A gateway that knows nothing of a session any more, and has no note to cut it, compares and cuts it."""
    device, other = await bound(place), await bound(place, "SN-2")
    async with place.join(device) as client, place.join(other) as witness:
        await _shown(place, device, other)
        await place.stop()
        await place.unbind(device)
        await place.store.write(lambda tx: tx.run("DELETE FROM outbox"))
        await place.start()
        await client.closed()
        await witness.ping()


async def _shown(place: Site, *devices: Device) -> None:
    """RabbitMQ lists a connection only a moment after it began."""

    async def listed() -> bool:
        answer = {row["user"] for row in await asyncio.to_thread(_connections, place)}
        return {device.id for device in devices} <= answer

    await eventually(listed, "RabbitMQ lists the connections")


def _connections(place: Site) -> list[dict[str, str]]:
    with place.broker.node.api() as api:  # type: ignore[union-attr] # every test here has that node
        rows: list[dict[str, str]] = api.get("/api/connections", params={"columns": "user"}).json()
    return [row for row in rows if "user" in row]


async def test_while_the_gateway_is_away_nobody_new_gets_in(place: Site) -> None:
    """RabbitMQ cannot ask and refuses; when the gateway is back the same device is admitted."""
    device = await bound(place)
    await place.broker.stop()
    assert await answer(place, device) != wire.ACCEPTED
    await place.broker.start()
    async with place.join(device) as client:
        await client.publish(device.topic("heartbeat"), beat(80))
        await eventually(place.beats, "the heartbeat is stored")


async def test_what_the_broker_lost_is_published_again_unseen(place: Site) -> None:
    """No wildcard tells what is retained, so at a connect each open command is published again."""
    device = await bound(place)
    command = await place.reset(device)
    await place.settled()
    topic = device.topic("commands/factory_reset")
    async with place.admin() as admin:
        await admin.publish(topic, b"", retain=True)
    assert await held(place, topic) is None
    await place.stop()
    with capture_logs() as logs:
        await place.start()
    assert [entry["wildcard_retained"] for entry in logs if entry["event"] == "broker.reconciled"] == [False]
    found = await held(place, topic)
    assert found == command_sql.payload(command).model_dump_json().encode()


async def test_what_the_broker_should_have_lost_is_cleared_unseen(place: Site) -> None:
    """A command that came back although it was closed lately is cleared at a connect, without being seen."""
    device = await bound(place)
    command = await place.reset(device)
    await place.settled()
    topic = device.topic("commands/factory_reset")
    old = await held(place, topic)
    assert old
    await place.cancel(device, command)
    await place.settled()
    assert await held(place, topic) is None
    async with place.admin() as admin:
        await admin.publish(topic, old, retain=True)
    await place.stop()
    await place.start()
    assert await held(place, topic) is None


@pytest.mark.parametrize("asked", ["publish", "subscribe"])
async def test_what_is_refused_ends_the_connection(place: Site, asked: str) -> None:
    """RabbitMQ has no other answer; the same device may come back at once."""
    device, other = await bound(place), await bound(place, "SN-2")
    async with place.join(device) as client:
        packet = {
            "publish": wire.publish_packet(other.topic("heartbeat"), b"x"),
            "subscribe": wire.subscribe_packet(other.topic("commands/reboot")),
        }[asked]
        await client.send(packet)
        print(await client.closed())  # noqa: T201 - shown when it fails
    async with place.join(device) as client:
        await client.ping()


async def test_a_connected_device_is_refused_while_the_gateway_is_away(place: Site) -> None:
    """It stays connected, and what it publishes cannot be judged: RabbitMQ ends the connection, nothing is lost."""
    device = await bound(place)
    async with place.join(device) as client:
        await client.ping()
        await place.broker.stop()
        await client.ping()
        await client.send(wire.publish_packet(device.topic("heartbeat"), beat(80)))
        assert wire.Kind.PUBACK not in [packet.kind for packet in await client.closed()]
    await place.broker.start()
    assert await place.beats() == []


async def test_a_dot_is_a_level(place: Site) -> None:
    """An integrator hears `device.bound` as two levels, by the filter that it has everywhere."""
    password = await place.store.write(lambda tx: account_sql.create(tx, "integrator"))
    async with wire.Wire.open("127.0.0.1", place.broker.port) as integrator, place.admin() as admin:
        assert await integrator.connect("integrator", "integrator", password) == wire.ACCEPTED
        await integrator.subscribe("devices/+/events/#")
        await admin.publish("devices/dev_A/events/device.bound", b"x")
        assert (await integrator.read_publish()).topic == "devices/dev_A/events/device/bound"
