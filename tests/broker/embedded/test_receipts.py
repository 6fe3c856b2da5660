"""The embedded broker on the wire: a PUBACK follows the gateway's own, which follows its commit."""

import asyncio
import struct

import pytest

from gateway.broker.embedded.server import EmbeddedBroker
from tests.broker.embedded.support import (
    assert_nothing_more,
    connected,
    manually_acknowledging,
    subscribed_gateway,
)
from tests.support.wire import Kind, Packet, Will, publish_packet

HEARTBEAT = "devices/dev_A/heartbeat"
ACK = "devices/dev_A/commands/factory_reset/ack"
DISCONNECT = Packet(Kind.DISCONNECT, 0, b"")


def puback(packet_id: int, kind: Kind = Kind.PUBACK) -> Packet:
    """The answer to a message."""
    return Packet(kind, 0, struct.pack("!H", packet_id))


async def test_a_puback_waits_for_the_gateways_puback(broker: EmbeddedBroker) -> None:
    """Nothing before it, whatever the device asks meanwhile; then it comes."""
    async with manually_acknowledging(broker) as gateway, connected(broker, "dev_A") as device:
        await device.send(publish_packet(HEARTBEAT, b"x", packet_id=7))
        message = await gateway.read_publish()
        await device.ping()
        await gateway.acknowledge(message)
        assert await device.read_packet() == puback(7)


async def test_pubacks_keep_the_order_of_the_connection(broker: EmbeddedBroker) -> None:
    """Whatever the gateway takes first [MQTT-4.6.0-2]; what is dropped at once waits for its turn as well."""
    async with manually_acknowledging(broker) as gateway, connected(broker, "dev_A") as device:
        topics = (HEARTBEAT, "devices/dev_B/heartbeat", ACK, HEARTBEAT)
        await device.send(*(publish_packet(topic, b"x", packet_id=n + 1) for n, topic in enumerate(topics)))
        first, second, third = [await gateway.read_publish() for _ in range(3)]
        await gateway.acknowledge(third)
        await gateway.acknowledge(second)
        await gateway.ping()
        await device.ping()
        await gateway.acknowledge(first)
        assert [await device.read_packet() for _ in range(4)] == [puback(n + 1) for n in range(4)]


async def test_messages_without_a_gateway_subscription_are_acknowledged_at_once(broker: EmbeddedBroker) -> None:
    """A topic that a client may not write, and the gateway's own words."""
    async with (
        manually_acknowledging(broker) as gateway,
        connected(broker, "dev_A") as device,
        connected(broker, "integrator") as other,
    ):
        await device.publish("devices/dev_B/heartbeat", b"x", qos=1)
        await other.publish(HEARTBEAT, b"x", qos=1)
        await gateway.publish("devices/dev_A/heartbeat", b"its own", qos=1)
        assert (await gateway.read_publish()).payload == b"its own"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_device_messages_wait_until_the_gateway_has_subscribed(broker: EmbeddedBroker, qos: int) -> None:
    """After a restart devices are quicker than the gateway's SUBSCRIBE, and what it does not get would be lost."""
    async with connected(broker, "dev_A") as device, connected(broker, "dev_B") as other:
        await device.send(publish_packet(HEARTBEAT, b"early", qos=qos))
        await other.subscribe("devices/dev_B/commands/reboot")
        async with subscribed_gateway(broker) as gateway:
            assert (await gateway.read_publish()).payload == b"early"
            if qos:
                assert await device.read_packet() == puback(1, Kind.PUBACK if qos == 1 else Kind.PUBREC)
            await device.ping()


async def test_a_device_that_waits_for_its_puback_can_be_cut(broker: EmbeddedBroker) -> None:
    """And what it wanted to say is not heard."""
    async with connected(broker, "dev_A") as device:
        await device.send(publish_packet(HEARTBEAT, b"early"))
        await asyncio.sleep(0)
        assert await broker.cut("dev_A")
        assert await device.closed() == []
    async with subscribed_gateway(broker) as gateway:
        await assert_nothing_more(gateway)


async def test_a_disconnecting_device_gets_all_pubacks_first(broker: EmbeddedBroker) -> None:
    """Its connection is closed when its PUBACK is out."""
    async with manually_acknowledging(broker) as gateway, connected(broker, "dev_A") as device:
        await device.send(publish_packet(HEARTBEAT, b"x"), DISCONNECT)
        message = await gateway.read_publish()
        await gateway.ping()
        await gateway.acknowledge(message)
        assert await device.closed() == [puback(1)]


async def test_a_cut_device_gets_the_puback_of_its_last_message(broker: EmbeddedBroker) -> None:
    """`executed` ends the session that it came by: its PUBACK goes out before. Nothing that comes later is heeded."""
    will = Will("devices/dev_A/status", b"offline")
    async with manually_acknowledging(broker) as gateway, connected(broker, "dev_A", will=will) as device:
        await device.send(publish_packet(ACK, b"executed"))
        message = await gateway.read_publish()
        assert await broker.cut("dev_A")
        assert "dev_A" not in broker.sessions()
        await device.send(publish_packet(HEARTBEAT, b"too late", packet_id=2))
        await gateway.acknowledge(message)
        assert await device.closed() == [puback(1)]
        await assert_nothing_more(gateway)


async def test_a_cut_device_is_closed_although_the_gateway_acknowledges_nothing(broker: EmbeddedBroker) -> None:
    """A registry that cannot commit keeps no revoked session: the socket is closed without the PUBACK."""
    async with manually_acknowledging(broker) as gateway, connected(broker, "dev_A") as device:
        await device.send(publish_packet(ACK, b"executed"))
        await gateway.read_publish()
        assert await broker.cut("dev_A")
        assert await device.closed() == []


async def test_qos_2_is_confirmed_when_the_gateway_has_it(broker: EmbeddedBroker) -> None:
    """Repeated on the same connection it is the same message; on the next one, unconfirmed, it is said again."""
    async with manually_acknowledging(broker) as gateway:
        said = publish_packet(HEARTBEAT, b"once", qos=2, packet_id=3)
        async with connected(broker, "dev_A", clean=False) as device:
            await device.send(said, said)
            lost = await gateway.read_publish()
            await device.ping()
        async with connected(broker, "dev_A", clean=False) as device:
            await device.send(said)
            again = await gateway.read_publish()
            await device.ping()
            await gateway.acknowledge(lost)
            await gateway.acknowledge(again)
            assert await device.read_packet() == puback(3, Kind.PUBREC)
            await device.send(said)
            assert await device.read_packet() == puback(3, Kind.PUBREC)
            await assert_nothing_more(gateway)


async def test_the_gateway_sees_the_retain_flag_of_a_heartbeat(broker: EmbeddedBroker) -> None:
    """As MQTT 5 shows it under "retain as published", so that it can refuse it; a status is news, and kept."""
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A") as device:
        for topic in (HEARTBEAT, "devices/dev_A/status"):
            await device.publish(topic, b"x", qos=1, retain=True)
        got = [await gateway.read_publish() for _ in range(2)]
        assert [message.retain for message in got] == [True, False]
    async with subscribed_gateway(broker) as late:
        assert (await late.read_publish()).topic == "devices/dev_A/status"
        await assert_nothing_more(late)
