"""The embedded broker on the wire: what was acknowledged arrives, once, in order."""

import asyncio
import contextlib
import socket
import struct

import pytest

from gateway.broker.embedded.server import BrokerLimits, ClientIdentity, EmbeddedBroker
from tests.broker.embedded.support import (
    PASSWORD,
    assert_nothing_more,
    authenticate,
    connected,
    manually_acknowledging,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.wait import eventually
from tests.support.wire import Kind, Packet, Wire, connect_packet, publish_packet, subscribe_packet

HEARTBEAT = "devices/dev_A/heartbeat"
RESET = "devices/dev_A/commands/factory_reset"
REBOOT = "devices/dev_A/commands/reboot"
DISCONNECT = Packet(Kind.DISCONNECT, 0, b"")


def heartbeats(count: int, *, size: int = 250) -> list[Packet]:
    """That many heartbeats at QoS 1, numbered."""
    return [publish_packet(HEARTBEAT, b"%0*d" % (size, n), packet_id=n + 1) for n in range(count)]


def puback(packet_id: int) -> Packet:
    """The answer to one of them."""
    return Packet(Kind.PUBACK, 0, struct.pack("!H", packet_id))


@pytest.mark.parametrize("count", [1, 3, 20, 1_000])
async def test_messages_sent_before_a_disconnect_arrive(broker: EmbeddedBroker, count: int) -> None:
    """Pipelined and followed by DISCONNECT: all of it, in order. Of lots of twenty, plain amqtt loses part."""
    async with subscribed_gateway(broker) as gateway:
        async with connected(broker, "dev_A") as device:
            await device.send(*heartbeats(count), DISCONNECT)
            answers = await device.closed()
        assert [packet.kind for packet in answers] == [Kind.PUBACK] * count
        assert [int(one) for one in await payloads_until_end_marker(broker, gateway)] == list(range(count))


@pytest.mark.parametrize("count", [1, 20, 200])
async def test_connect_publish_and_disconnect_in_a_single_write(broker: EmbeddedBroker, count: int) -> None:
    """A device that wakes, says it all without waiting for an answer and sleeps again."""
    async with subscribed_gateway(broker) as gateway:
        async with Wire.open(broker.host, broker.port) as device:
            await device.send(connect_packet("dev_A", "dev_A", PASSWORD), *heartbeats(count), DISCONNECT)
            assert len(await device.closed()) == 1 + count
        assert [int(one) for one in await payloads_until_end_marker(broker, gateway)] == list(range(count))


async def test_packets_read_before_a_tcp_reset_count(broker: EmbeddedBroker) -> None:
    """The publisher closes without reading a single answer, so that the answers meet a closed socket."""
    async with subscribed_gateway(broker) as gateway:
        for _ in range(20):
            async with Wire.open(broker.host, broker.port) as device:
                await device.send(connect_packet("dev_A", "dev_A", PASSWORD), *heartbeats(20), DISCONNECT)
            for n in range(20):
                message = await gateway.read_publish()
                assert int(message.payload) == n
                await gateway.acknowledge(message)


async def test_packets_before_a_tcp_reset_count_when_authentication_ends_after_it() -> None:
    """The authenticator takes its time; meanwhile the device has said all it had to say, and is gone."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(client_id: str, username: str | None, password: str | None) -> ClientIdentity | None:
        if client_id == "dev_A":
            asked.set()
            await answer.wait()
        return await authenticate(client_id, username, password)

    async with EmbeddedBroker(authenticate=slow) as broker, subscribed_gateway(broker) as gateway:
        _, writer = await asyncio.open_connection(broker.host, broker.port)
        said = connect_packet("dev_A", "dev_A", PASSWORD), *heartbeats(3)
        writer.write(b"".join(packet.encode() for packet in said))
        await asked.wait()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        writer.transport.abort()
        await gateway.ping()
        answer.set()
        assert [int((await gateway.read_publish()).payload) for _ in range(3)] == [0, 1, 2]


async def test_an_unacknowledged_message_is_redelivered_after_the_reconnect(broker: EmbeddedBroker) -> None:
    """The same packet id, marked as a duplicate, before what came meanwhile [MQTT-4.4.0-1], [MQTT-4.6.0-1].

    There is no timer to it: plain amqtt drops such a message after five seconds, and at once when the connection ends.
    """
    async with connected(broker, "dev_A") as device:
        async with manually_acknowledging(broker, "devices/+/heartbeat", clean=False) as gateway:
            await device.send(publish_packet(HEARTBEAT, b"one"), publish_packet(HEARTBEAT, b"two", packet_id=2))
            first, second = await gateway.read_publish(), await gateway.read_publish()
            await gateway.acknowledge(first)
            await gateway.ping()
        await eventually(lambda: "gateway" not in broker.sessions(), "the gateway's connection ended")
        await device.send(publish_packet(HEARTBEAT, b"three", packet_id=3))
        assert (await device.read_packet()).body == b"\0\1"
        await device.ping()
    async with connected(broker, "gateway", clean=False) as gateway:
        assert gateway.session_present
        again, third = await gateway.read_publish(), await gateway.read_publish()
        assert (again.payload, again.packet_id, again.duplicate) == (b"two", second.packet_id, True)
        assert (third.payload, third.duplicate) == (b"three", False)


async def test_a_gateway_that_acknowledges_late_loses_no_message() -> None:
    """3,000 heartbeats while it acknowledges none: 1,000 in flight, the rest as it acknowledges, each once."""
    async with (
        EmbeddedBroker(authenticate=authenticate, limits=BrokerLimits(unheard=3_000)) as broker,
        manually_acknowledging(broker) as gateway,
        connected(broker, "dev_A") as device,
    ):
        await device.send(*heartbeats(3_000))
        got = [await gateway.read_publish() for _ in range(1_000)]
        await assert_nothing_more(gateway)
        for message in got:
            await gateway.acknowledge(message)
        rest = []
        for _ in range(2_000):
            rest.append(await gateway.read_publish())
            await gateway.acknowledge(rest[-1])
        assert [int(message.payload) for message in [*got, *rest]] == list(range(3_000))
        assert [await device.read_packet() for _ in range(3_000)] == [puback(n + 1) for n in range(3_000)]


async def test_an_offline_device_gets_the_last_hundred_qos_1_messages() -> None:
    """Its persistent session holds a bounded number of messages, in order; QoS 0 is not kept."""
    limits = BrokerLimits(queued=100)
    async with (
        EmbeddedBroker(authenticate=authenticate, limits=limits) as broker,
        connected(broker, "gateway") as gateway,
    ):
        async with connected(broker, "dev_A", clean=False) as device:
            assert await device.subscribe(REBOOT, "devices/dev_A/errors") == [1, 1]
            await device.disconnect()
        for n in range(150):
            await gateway.publish(REBOOT, b"%d" % n, qos=1)
            await gateway.publish("devices/dev_A/errors", b"lost", qos=0)
        async with connected(broker, "dev_A", clean=False) as device:
            messages = []
            for _ in range(100):
                messages.append(await device.read_publish())
                await device.acknowledge(messages[-1])
            assert [int(message.payload) for message in messages] == list(range(50, 150))
            assert not any(message.retain or message.duplicate for message in messages)
            await assert_nothing_more(device)


async def test_a_reconnect_does_not_deliver_a_command_twice(broker: EmbeddedBroker) -> None:
    """Queued for the session and retained: once from the queue. Retained ones come at SUBSCRIBE [MQTT-3.3.1-6]."""
    async with connected(broker, "gateway") as gateway:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.subscribe(RESET)
            await device.disconnect()
        await gateway.publish(RESET, b"reset", qos=1, retain=True)
        async with connected(broker, "dev_A", clean=False) as device:
            message = await device.read_publish()
            assert (message.payload, message.retain) == (b"reset", False)
            await assert_nothing_more(device)


async def test_queued_messages_are_bounded_in_bytes() -> None:
    """A fleet that talks to a gateway that is away cannot fill the memory: the oldest goes, and its sender is told.

    It has no PUBACK and is cut off, so that it says it again; what came before that and fits is kept.
    """
    limits = BrokerLimits(queued_bytes=10 * (1_000 + len("devices/dev_A/heartbeat")))
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, connected(broker, "dev_A") as device:
        async with manually_acknowledging(broker, "devices/+/heartbeat", clean=False) as gateway:
            await gateway.disconnect()
        with contextlib.suppress(ConnectionResetError):
            await device.send(*heartbeats(20, size=1_000))
        assert await device.closed() == []
        async with connected(broker, "gateway", clean=False) as gateway:
            assert [int((await gateway.read_publish()).payload) for _ in range(10)] == list(range(1, 11))
            await assert_nothing_more(gateway)


async def test_subscribe_and_unsubscribe_do_not_disturb_a_delivery(broker: EmbeddedBroker) -> None:
    """1,000 heartbeats while forty devices come, subscribe and go: plain amqtt with awaiting plugins lost half."""
    async with (
        subscribed_gateway(broker) as gateway,
        connected(broker, "dev_A") as device,
        asyncio.TaskGroup() as others,
    ):
        for n in range(40):
            others.create_task(_come_and_go(broker, f"dev_{n}x"), name=f"dev_{n}x")
        await device.send(*heartbeats(1_000))
        for _ in range(1_000):
            await device.read_packet()
        got = await payloads_until_end_marker(broker, gateway)
        assert [int(one) for one in got] == list(range(1_000))


async def test_a_client_that_reads_nothing_does_not_delay_others(broker: EmbeddedBroker) -> None:
    """It subscribes, and pings without ever reading an answer; the others are served meanwhile."""
    async with (
        connected(broker, "gateway") as gateway,
        connected(broker, "dev_deaf") as deaf,
        connected(broker, "dev_A") as device,
    ):
        await deaf.send(subscribe_packet("devices/dev_deaf/errors"), Packet(Kind.PINGREQ, 0, b"").encode() * 10_000)
        for _ in range(200):
            await gateway.publish("devices/dev_deaf/errors", bytes(100_000), qos=0)
        await device.subscribe(REBOOT)
        await gateway.publish(REBOOT, b"x", qos=1)
        assert (await device.read_publish()).payload == b"x"


async def _come_and_go(broker: EmbeddedBroker, device_id: str) -> None:
    for _ in range(5):
        async with connected(broker, device_id) as device:
            await device.subscribe(f"devices/{device_id}/commands/+", f"devices/{device_id}/errors")
