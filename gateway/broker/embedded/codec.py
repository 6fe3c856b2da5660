"""Packet codec of the embedded broker: packets are read whole and within a limit, and decoded by amqtt.

amqtt decodes straight from the socket, without a limit, and follows lengths inside a packet into the next one. Here a
packet is first read whole. A packet that encodes differently than it came is malformed: text that is not UTF-8, lengths
that do not add up, bytes left over.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from amqtt.adapters import BufferReader
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    MQTTFixedHeader,
)

MAX_CONNECT_BYTES: Final = 16_384
"""Limit for a CONNECT, whose sender is not known yet. Id, credentials and will of this contract are far smaller."""

_MQTT_3_1_1: Final = b"\x00\x04MQTT\x04"
_OTHER_MQTT: Final = (b"\x00\x04MQTT", b"\x00\x06MQIsdp")
_MQTT_5: Final = 5
_FLAGS: Final = {SUBSCRIBE: 2, UNSUBSCRIBE: 2, PUBREL: 2, PUBACK: 0, PINGREQ: 0, DISCONNECT: 0}
_CONTINUES: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4
_QOS_2: Final = 2


class MalformedPacketError(Exception):
    """The client may not send this now, or it is no packet. The connection ends [MQTT-4.8.0-1]."""


class UnsupportedProtocolError(Exception):
    """A CONNECT of another MQTT version than 3.1.1 [MQTT-3.1.2-2]; ``level`` is its protocol level."""

    def __init__(self, level: int) -> None:
        super().__init__(f"protocol level {level}")
        self.level = level

    @property
    def version(self) -> str:
        """Return the version's usual name."""
        return {3: "3.1", 5: "5"}.get(self.level, f"level {self.level}")

    @property
    def answer(self) -> bytes:
        """Return the CONNACK that refuses it, as MQTT 5 has it for newer clients [MQTT 5, 3.2.2.2]."""
        return b"\x20\x03\x00\x84\x00" if self.level >= _MQTT_5 else b"\x20\x02\x00\x01"


class LenientReader(asyncio.StreamReader):
    """Returns what arrived before the connection was reset. A plain reader drops it, heartbeats included."""

    def set_exception(self, exc: Exception) -> None:  # noqa: ARG002 - how the connection ended makes no difference
        """End the stream after what is buffered, as at any other end."""
        self.feed_eof()


@dataclass(frozen=True)
class Will:
    """The message to publish when the client dies [MQTT 3.1.2.5]."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True)
class Packet:
    """A packet as it arrived: its fixed header, and the bytes after it."""

    kind: int
    flags: int
    body: bytes


async def read_packet(reader: asyncio.StreamReader, max_bytes: int) -> Packet:
    """Read one packet.

    Raises:
        MalformedPacketError: it is longer than `max_bytes`; the rest is not read.
        EOFError: the connection ended.
    """
    return await _read_rest(reader, (await reader.readexactly(1))[0], max_bytes)


async def _read_rest(reader: asyncio.StreamReader, first: int, max_bytes: int) -> Packet:
    length = await _read_length(reader)
    if length > max_bytes:
        raise MalformedPacketError(f"a packet of {length} bytes, more than the {max_bytes} allowed")
    return Packet(first >> 4, first & 0x0F, await reader.readexactly(length))


async def _read_length(reader: asyncio.StreamReader) -> int:
    length = 0
    for position in range(_MAX_LENGTH_BYTES):
        byte = (await reader.readexactly(1))[0]
        length |= (byte & ~_CONTINUES) << 7 * position
        if not byte & _CONTINUES:
            return length
    raise MalformedPacketError("a remaining length of more than four bytes [MQTT 2.2.3]")


async def read_connect(reader: asyncio.StreamReader) -> ConnectPacket:
    """Read the first packet. For a client id that was left out it has None; amqtt would make one up.

    Raises:
        MalformedPacketError: it is no good CONNECT.
        UnsupportedProtocolError: it is of another MQTT version.
        EOFError: the connection ended.
    """
    first = (await reader.readexactly(1))[0]
    if first != CONNECT << 4:
        raise MalformedPacketError("the first packet is not a CONNECT [MQTT-3.1.0-1]")
    packet = await _read_rest(reader, first, MAX_CONNECT_BYTES)
    if not packet.body.startswith(_MQTT_3_1_1):
        for name in _OTHER_MQTT:
            if packet.body.startswith(name) and len(packet.body) > len(name):
                raise UnsupportedProtocolError(packet.body[len(name)])
        raise MalformedPacketError("not MQTT [MQTT-3.1.2-1]")
    return await _decode_connect(packet)


async def _decode_connect(packet: Packet) -> ConnectPacket:
    connect = await _decoded(packet)
    if left_out := connect.payload.client_id_is_random:
        connect.payload.client_id = ""
    _refuse_mangled(connect, packet)
    if not _flags_agree(connect):
        raise MalformedPacketError("flags and fields of the CONNECT disagree [MQTT 3.1.2.3]")
    if left_out:
        connect.payload.client_id = None
    return connect


def _flags_agree(connect: ConnectPacket) -> bool:
    header, payload = connect.variable_header, connect.payload
    will_whole = payload.will_topic is not None and payload.will_message is not None
    return (
        not header.reserved_flag
        and header.will_flag == will_whole
        and (header.will_qos <= _QOS_2 if header.will_flag else not header.will_qos and not header.will_retain_flag)
        and header.username_flag == (payload.username is not None)
        and header.password_flag == (payload.password is not None)
        and (header.username_flag or not header.password_flag)
    )


def will_of(connect: ConnectPacket) -> Will | None:
    """Return the last will in a CONNECT, or None."""
    if not connect.will_flag:
        return None
    return Will(connect.will_topic, bytes(connect.will_message), connect.will_qos, connect.will_retain_flag)


async def decode(packet: Packet) -> Any:
    """Decode a packet that a connected client may send.

    Raises:
        MalformedPacketError: it is no such packet.
    """
    if not _flags_fit(packet):
        raise MalformedPacketError(f"a packet of type {packet.kind} with flags {packet.flags} [MQTT 2.2.2]")
    decoded = await _decoded(packet)
    _refuse_mangled(decoded, packet)
    if decoded.variable_header is not None and decoded.variable_header.packet_id == 0:
        raise MalformedPacketError("a packet id of 0 [MQTT-2.3.1-1]")
    return decoded


def _flags_fit(packet: Packet) -> bool:
    if packet.kind == PUBLISH:
        return packet.flags >> 1 & 3 <= _QOS_2
    return _FLAGS.get(packet.kind) == packet.flags


async def _decoded(packet: Packet) -> Any:
    header = MQTTFixedHeader(packet.kind, packet.flags, len(packet.body))
    try:
        return await packet_class(header).from_stream(BufferReader(packet.body), fixed_header=header)
    except (AMQTTError, MQTTError, NoDataError, ValueError) as error:
        raise MalformedPacketError(str(error)) from error


def _refuse_mangled(decoded: Any, packet: Packet) -> None:
    header_bytes = len(MQTTFixedHeader(packet.kind, packet.flags, len(packet.body)).to_bytes())
    if decoded.to_bytes()[header_bytes:] != packet.body:
        raise MalformedPacketError(f"a packet of type {packet.kind} that does not read as one")
