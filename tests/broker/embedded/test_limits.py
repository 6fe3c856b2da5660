"""The embedded broker on the wire: what ends a connection, and how much it takes from anybody."""

import asyncio
import contextlib
import gc
import struct
from asyncio.sslproto import SSLProtocol
from pathlib import Path

import pytest

from gateway.broker.embedded.server import BrokerLimits, EmbeddedBroker
from gateway.broker.embedded.session import Backlog, Waiting
from gateway.http.server.listener import MOST_BEFORE_HANDSHAKE
from gateway.tls.certificates import Files, ServerCertificate
from tests.broker.embedded.support import (
    PASSWORD,
    authenticate,
    connected,
    payloads_until_end_marker,
    subscribed_gateway,
)
from tests.support.certificates import make_authority, server_pair, trusting_context
from tests.support.wait import eventually
from tests.support.wire import (
    ACCEPTED,
    CLOSED,
    Kind,
    Packet,
    Will,
    Wire,
    connect_packet,
    publish_packet,
    text,
)

SERVER_UNAVAILABLE = 3


async def test_a_socket_that_stays_silent_is_closed() -> None:
    """Without a CONNECT in time, or with half of one."""
    async with EmbeddedBroker(authenticate=authenticate, connect_timeout=0.05) as broker:
        for beginning in (b"", connect_packet("dev_A", "dev_A", PASSWORD).encode()[:-3]):
            async with Wire.open(broker.host, broker.port) as client:
                await client.send(beginning)
                assert await client.closed() == []


async def test_authentication_that_hangs_is_closed_at_the_same_time_limit() -> None:
    """While the registry does not answer, no client is admitted and no socket is kept."""

    async def never(_: str, __: str | None, ___: str | None) -> None:
        await asyncio.Event().wait()

    async with (
        EmbeddedBroker(authenticate=never, connect_timeout=0.05) as broker,
        Wire.open(broker.host, broker.port) as client,
    ):
        assert await client.connect("dev_A", "dev_A", PASSWORD) == CLOSED


async def test_silence_beyond_the_keepalive_publishes_the_will(broker: EmbeddedBroker) -> None:
    """One and a half times the keepalive [MQTT-3.1.2-24]; plain amqtt waits for ever, and no will says `offline`."""
    will = Will("devices/dev_A/status", b"offline", retain=True)
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_A", keepalive=1, will=will) as device:
        assert await device.closed() == []
        assert (await gateway.read_publish()).payload == b"offline"
    async with subscribed_gateway(broker) as late:
        assert (await late.read_publish()).retain


async def test_a_ping_keeps_the_connection_alive(broker: EmbeddedBroker) -> None:
    """The same keepalive, with the client pinging until after its will would have come."""
    async with connected(broker, "dev_A", keepalive=1) as device, connected(broker, "dev_B", keepalive=1) as silent:
        gone = asyncio.create_task(silent.closed())
        while not gone.done():
            await device.ping()
            await asyncio.wait({gone}, timeout=0.3)
        await device.ping()


async def test_a_packet_beyond_the_limit_closes_the_connection_unread() -> None:
    """Its header is enough: nothing of it is waited for, let alone kept. Plain amqtt took 250 MB."""
    async with (
        EmbeddedBroker(authenticate=authenticate, max_packet_bytes=1_000) as broker,
        subscribed_gateway(broker) as gateway,
    ):
        async with connected(broker, "dev_A") as device:
            await device.send(publish_packet("devices/dev_A/heartbeat", bytes(900)))
            await device.send(b"\x32\xff\xff\xff\x7f")
            assert [packet.kind for packet in await device.closed()] == [Kind.PUBACK]
        assert [len(one) for one in await payloads_until_end_marker(broker, gateway)] == [900]


MALFORMED = {
    "reserved type": b"\xf0\x00",
    "type 0": b"\x00\x00",
    "from a server": b"\x20\x02\x00\x00",
    "second connect": connect_packet("dev_A", "dev_A", PASSWORD).encode(),
    "endless length": b"\x30\xff\xff\xff\xff\x01",
    "qos 3": Packet(Kind.PUBLISH, 0b0110, text("devices/dev_A/heartbeat") + b"\x00\x01x").encode(),
    "packet id 0": publish_packet("devices/dev_A/heartbeat", b"x", packet_id=0).encode(),
    "topic beyond the packet": b"\x30\x04\xff\xffab",
    "topic not UTF-8": publish_packet(b"devices/dev_A/\xff", b"x", qos=0).encode(),
    "topic with NUL": publish_packet("devices/dev_A/\0", b"x", qos=0).encode(),
    "topic empty": publish_packet("", b"x", qos=0).encode(),
    "topic with wildcard": publish_packet("devices/+/heartbeat", b"x", qos=0).encode(),
    "topic of 64 KB": publish_packet("devices/dev_A/heartbeat/" + "x" * 65_000, b"x", qos=0).encode(),
    "topic of 33 levels": publish_packet("/" * 32, b"x", qos=0).encode(),
    "subscribe with wrong flags": Packet(Kind.SUBSCRIBE, 0, b"\x00\x01" + text("a") + b"\x00").encode(),
    "subscribe to nothing": Packet(Kind.SUBSCRIBE, 2, b"\x00\x01").encode(),
    "subscribe at qos 3": Packet(Kind.SUBSCRIBE, 2, b"\x00\x01" + text("a") + b"\x03").encode(),
    "subscribe cut short": Packet(Kind.SUBSCRIBE, 2, b"\x00\x01" + text("a")).encode(),
    "ping with a body": Packet(Kind.PINGREQ, 0, b"x").encode(),
}


@pytest.mark.parametrize("garbage", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_packet_ends_that_connection_alone(broker: EmbeddedBroker, garbage: bytes) -> None:
    """What is not MQTT ends the connection, and its will tells so; everybody else goes on."""
    will = Will("devices/dev_A/status", b"offline")
    async with subscribed_gateway(broker) as gateway, connected(broker, "dev_B") as other:
        async with connected(broker, "dev_A", will=will) as device:
            await device.send(publish_packet("devices/dev_A/heartbeat", b"before", qos=0), garbage)
            await device.closed()
        await other.publish("devices/dev_B/heartbeat", b"others go on", qos=1)
        assert await payloads_until_end_marker(broker, gateway) == [b"before", b"offline", b"others go on"]


async def test_topic_filters_have_a_maximum_length(broker: EmbeddedBroker) -> None:
    """Filters that an integrator may use, of 64 KB or of 33 levels, are refused; the longest that are taken work."""
    prefix, long = "devices/", "x" * (1_024 - len("devices//state"))
    async with connected(broker, "integrator", clean=False) as integrator:
        assert await integrator.subscribe(f"{prefix}{'x' * 65_000}/state") == [0x80]
        assert await integrator.subscribe(f"{prefix}a/events" + "/a" * 30) == [0x80]
        assert await integrator.subscribe(f"{prefix}x{long}/state") == [0x80]
        codes = await integrator.subscribe(f"{prefix}{long}/state", f"{prefix}a/events" + "/a" * 29)
        assert 0x80 not in codes
        async with subscribed_gateway(broker) as gateway:
            await gateway.publish(f"{prefix}{long}/state", b"arrives")
            assert (await integrator.read_publish()).payload == b"arrives"


def test_queued_bytes_include_the_topic() -> None:
    """The limit is of bytes, wherever in the message they are."""
    backlog = Backlog(1_000)
    for _ in range(10):
        backlog.append(Waiting("x" * 300, b"x", 1, retain=False, sender=None, receipt=None), None)
    assert len(backlog) == 3


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        publish_packet("devices/dev_A/heartbeat", b"x").encode(),
        b"\x10\xff\xff\xff\x7f",
        Packet(Kind.CONNECT, 0, text("MQTT") + struct.pack("!BBH", 4, 0b0000_0011, 60) + text("x")).encode(),
        Packet(Kind.CONNECT, 0, text("MQTT") + struct.pack("!BBH", 4, 0b1100_0010, 60) + text("x")).encode(),
        Packet(Kind.CONNECT, 0, text("MQTT") + struct.pack("!BBH", 4, 0b0100_0010, 60) + text("x") * 2).encode(),
        Packet(Kind.CONNECT, 0, text("MQTT") + struct.pack("!BBH", 4, 0b0010_0010, 60) + text("x")).encode(),
        Packet(Kind.CONNECT, 0, text("OTHER") + struct.pack("!BBH", 4, 2, 60) + text("x")).encode(),
    ],
)
async def test_a_connection_that_does_not_start_with_connect_is_closed(broker: EmbeddedBroker, opening: bytes) -> None:
    """Another protocol, another packet, a CONNECT that contradicts itself: the end, without an answer."""
    async with Wire.open(broker.host, broker.port) as client:
        await client.send(opening)
        assert await client.closed() == []


async def test_clients_beyond_the_limit_are_refused() -> None:
    """Silent sockets take no place. A connected client may reconnect, and the gateway is always admitted."""
    limits = BrokerLimits(connections=2)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, Wire.open(broker.host, broker.port):
        async with connected(broker, "dev_A"), connected(broker, "dev_B"):
            async with Wire.open(broker.host, broker.port) as client:
                assert await client.connect("dev_C", "dev_C", PASSWORD) == SERVER_UNAVAILABLE
            async with connected(broker, "dev_B"), connected(broker, "gateway"):
                pass
        await eventually(lambda: _is_accepted(broker, "dev_C"), "a place became free")


async def test_integrators_leave_the_sessions_of_devices_free() -> None:
    """The share of integrators is bounded, for all their accounts together."""
    limits = BrokerLimits(connections=3, connections_others=1)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, connected(broker, "integrator"):
        async with Wire.open(broker.host, broker.port) as client:
            assert await client.connect("another", "integrator", PASSWORD) == SERVER_UNAVAILABLE
        async with connected(broker, "dev_A"), connected(broker, "dev_B"):
            pass


async def test_silent_sockets_do_not_block_other_clients() -> None:
    """Twelve hundred of them, and each of two hundred devices gets in at its first try."""
    async with EmbeddedBroker(authenticate=authenticate) as broker, contextlib.AsyncExitStack() as stack:
        for _ in range(1_200):
            await stack.enter_async_context(Wire.open(broker.host, broker.port))
        for n in range(200):
            await stack.enter_async_context(connected(broker, f"dev_{n}x"))
        assert len(broker.sessions()) == 200


async def test_silent_sockets_cost_no_tls_buffer(tmp_path: Path) -> None:
    """MQTTS: until their first byte; those that do not shake hands end in time, and others are let in."""
    pair = server_pair(authority := make_authority(tmp_path))
    certificate = ServerCertificate("mqtt", Files(pair.certificate, pair.key))
    async with EmbeddedBroker(authenticate=authenticate, certificate=certificate, connect_timeout=1.0) as broker:
        silent = [await asyncio.open_connection(broker.host, broker.port) for _ in range(MOST_BEFORE_HANDSHAKE + 10)]
        reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=trusting_context(authority))
        assert sum(isinstance(each, SSLProtocol) for each in gc.get_objects()) < 10
        writer.write(connect_packet("dev_A", "dev_A", PASSWORD).encode())
        assert (await reader.readexactly(4))[3] == ACCEPTED
        for ended, _ in silent:
            with contextlib.suppress(ConnectionResetError):
                assert await ended.read() == b""
        for each in (writer, *(other for _, other in silent)):
            each.transport.abort()


async def test_the_address_with_most_silent_sockets_loses_the_oldest() -> None:
    """One elsewhere that takes its time with its CONNECT is let in, however many others were opened after it."""
    limits = BrokerLimits(strangers=5)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, contextlib.AsyncExitStack() as stack:
        slow = await stack.enter_async_context(Wire.open(broker.host, broker.port))
        silent = [
            await asyncio.open_connection(broker.host, broker.port, local_addr=("127.0.0.2", 0)) for _ in range(20)
        ]
        for reader, _ in silent[:15]:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert await slow.connect("dev_A", "dev_A", PASSWORD) == ACCEPTED
        assert not any(reader.at_eof() for reader, _ in silent[16:])
        for _, writer in silent:
            writer.transport.abort()


async def test_one_account_has_a_bounded_number_of_sessions() -> None:
    """The oldest whose client is away goes for a new one; where all are connected the new one is refused."""
    limits = BrokerLimits(sessions_of_account=2)
    async with EmbeddedBroker(authenticate=authenticate, limits=limits) as broker, contextlib.AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            client = await stack.enter_async_context(Wire.open(broker.host, broker.port))
            assert await client.connect(name, "integrator", PASSWORD, clean=False) == ACCEPTED
            await client.disconnect()
        assert list(broker.kept_sessions()) == ["integrator/two", "integrator/three"]
        for name in ("two", "three"):
            client = await stack.enter_async_context(Wire.open(broker.host, broker.port))
            assert await client.connect(name, "integrator", PASSWORD, clean=False) == ACCEPTED
        client = await stack.enter_async_context(Wire.open(broker.host, broker.port))
        assert await client.connect("four", "integrator", PASSWORD, clean=False) == SERVER_UNAVAILABLE
        async with connected(broker, "dev_A"):
            pass


async def test_sessions_beyond_the_limit_are_refused() -> None:
    """Sessions that are kept for clients that are away are bounded as well."""
    async with EmbeddedBroker(authenticate=authenticate, limits=BrokerLimits(sessions=1)) as broker:
        async with connected(broker, "dev_A", clean=False) as device:
            await device.disconnect()
        async with Wire.open(broker.host, broker.port) as client:
            assert await client.connect("dev_B", "dev_B", PASSWORD) == SERVER_UNAVAILABLE
        async with connected(broker, "dev_A", clean=False) as device:
            assert device.session_present


async def _is_accepted(broker: EmbeddedBroker, username: str) -> bool:
    async with Wire.open(broker.host, broker.port) as client:
        return await client.connect(username, username, PASSWORD) == ACCEPTED
