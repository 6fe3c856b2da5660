"""Reading packets: what amqtt decodes is what was sent, and whatever else comes is malformed and nothing worse."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.embedded.codec import (
    MAX_CONNECT_BYTES,
    MalformedPacketError,
    Packet,
    UnsupportedProtocolError,
    decode,
    read_connect,
    read_packet,
)
from tests.support.wire import Kind, connect_packet, publish_packet, subscribe_packet
from tests.support.wire import Packet as Sent

seeded = settings(derandomize=True, max_examples=1_000, deadline=None)
MANGLED = (MalformedPacketError, UnsupportedProtocolError, EOFError)
VALID = (
    publish_packet("devices/dev_A/heartbeat", b"{}"),
    publish_packet("devices/dév_A/heartbeat", b"", qos=0),
    subscribe_packet("devices/dev_A/commands/reboot", "devices/dev_A/errors"),
    connect_packet("dev_A", "dev_A", "secret"),
)


def stream(data: bytes) -> asyncio.StreamReader:
    """A socket on which this comes, and then the end."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


@seeded
@given(kind=st.integers(0, 15), flags=st.integers(0, 15), body=st.binary(max_size=40))
def test_random_packets_are_decoded_or_malformed(kind: int, flags: int, body: bytes) -> None:
    """Nothing else comes out of amqtt's decoders: an exception that is not foreseen would end up in the log."""
    with contextlib.suppress(MalformedPacketError):
        asyncio.run(decode(Packet(kind, flags, body)))


@seeded
@given(packet=st.sampled_from(VALID), position=st.integers(0, 80), byte=st.integers(0, 255))
def test_packets_with_a_wrong_byte_are_decoded_or_malformed(packet: Sent, position: int, byte: int) -> None:
    """The same for what is almost right, CONNECT included, read from a stream."""
    data = bytearray(packet.encode())
    data[position % len(data)] = byte

    async def read() -> None:
        if packet.kind == Kind.CONNECT:
            await read_connect(stream(bytes(data)))
        else:
            await decode(await read_packet(stream(bytes(data)), 1_000))

    with contextlib.suppress(*MANGLED):
        asyncio.run(read())


@seeded
@given(topic=st.text(max_size=30), payload=st.binary(max_size=60), qos=st.integers(0, 2))
def test_a_publish_is_decoded_as_it_was_sent(topic: str, payload: bytes, qos: int) -> None:
    """Any topic without wildcards, any payload."""
    sent = publish_packet(topic, payload, qos=qos, packet_id=258)
    if "+" in topic or "#" in topic:
        with pytest.raises(MalformedPacketError):
            asyncio.run(decode(Packet(sent.kind, sent.flags, sent.body)))
        return
    got = asyncio.run(decode(Packet(sent.kind, sent.flags, sent.body)))
    assert (got.topic_name, got.data, got.qos) == (topic, payload, qos)
    assert got.packet_id == (258 if qos else None)


async def test_connect_has_a_separate_size_limit() -> None:
    """An unknown client cannot make the broker buffer a large packet: the length alone ends the connection."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"\x10" + bytes([MAX_CONNECT_BYTES % 128 + 1 | 0x80, MAX_CONNECT_BYTES // 128 | 0x80, 1]))
    with pytest.raises(MalformedPacketError, match="more than the 16384 allowed"):
        await read_connect(reader)


async def test_the_limit_is_the_last_size_that_is_read() -> None:
    """A packet of just that many bytes after its fixed header passes, one more does not."""
    assert len((await read_packet(stream(b"\x30\x7f" + bytes(127)), 127)).body) == 127
    with pytest.raises(MalformedPacketError):
        await read_packet(stream(b"\x30\x7f" + bytes(127)), 126)
