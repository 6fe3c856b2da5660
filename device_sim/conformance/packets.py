"""Packets of MQTT 3.1.1 as a broker reads and writes them, without I/O. Numbers in brackets name its sections."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

LEVEL_3_1_1 = 4
CONNACK_ACCEPTED, CONNACK_UNSUPPORTED, CONNACK_NOT_AUTHORISED = 0, 1, 5
SUBACK_FAILURE = 0x80
LARGEST_PACKET = 256 * 1024
_CONTINUES, _SEVEN_BITS = 0x80, 0x7F
_LONGEST_LENGTH = 4


class ProtocolError(Exception):
    """The device sent bytes that MQTT 3.1.1 does not allow."""


@dataclass(frozen=True)
class Will:
    """Last will of a CONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True)
class Connect:
    """CONNECT [3.1]. `level` is 4 for MQTT 3.1.1 and 5 for MQTT 5, whose other fields are not read."""

    protocol: str
    level: int
    clean_session: bool = True
    keepalive: int = 0
    client_id: str = ""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Publish:
    """PUBLISH [3.3]. `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


@dataclass(frozen=True)
class Puback:
    """PUBACK [3.4]."""

    packet_id: int


@dataclass(frozen=True)
class Subscribe:
    """SUBSCRIBE [3.8], each filter with its QoS."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Unsubscribe:
    """UNSUBSCRIBE [3.10]."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True)
class Pingreq:
    """PINGREQ [3.12]."""


@dataclass(frozen=True)
class Disconnect:
    """DISCONNECT [3.14]."""


Packet: TypeAlias = Connect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect


class _Body:
    """Reader of the part after the fixed header."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ProtocolError("a packet is shorter than its fields")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        try:
            return self.binary().decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a text of a packet is not UTF-8") from error

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    @property
    def more(self) -> bool:
        return self._at < len(self._data)


class PacketReader:
    """Splits the bytes of a connection into packets."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Add bytes, and yield each packet that is complete.

        Raises:
            ProtocolError: the bytes are no packet that a client may send.
        """
        self._bytes += data
        while (header := self._header()) is not None:
            size, length = header
            if len(self._bytes) < size + length:
                return
            first, body = self._bytes[0], bytes(self._bytes[size : size + length])
            del self._bytes[: size + length]
            yield decode(first, body)

    def _header(self) -> tuple[int, int] | None:
        """Return the size of the fixed header and the length of the rest, or None while bytes are missing [2.2.3]."""
        length = 0
        for place, byte in enumerate(self._bytes[1 : 1 + _LONGEST_LENGTH]):
            length |= (byte & _SEVEN_BITS) << (7 * place)
            if not byte & _CONTINUES:
                if length > LARGEST_PACKET:
                    raise ProtocolError(f"a packet of {length} bytes, more than {LARGEST_PACKET}")
                return place + 2, length
        if len(self._bytes) > _LONGEST_LENGTH:
            raise ProtocolError("the remaining length has more than four bytes")
        return None


def decode(first: int, data: bytes) -> Packet:  # noqa: PLR0911  # a table: one line per packet
    """Return the packet with this first byte.

    Raises:
        ProtocolError: a client may not send it.
    """
    body = _Body(data)
    match first >> 4:
        case 1:
            return _connect(body)
        case 3:
            return _publish(first, body)
        case 4:
            return Puback(body.number(2))
        case 8:
            return Subscribe(body.number(2), tuple(_filters(body)))
        case 10:
            return Unsubscribe(body.number(2), tuple(_names(body)))
        case 12:
            return Pingreq()
        case 14:
            return Disconnect()
    raise ProtocolError(f"a packet of type {first >> 4}, which a device at QoS 1 does not send")


def _connect(body: _Body) -> Connect:
    protocol, level = body.text(), body.number(1)
    if level != LEVEL_3_1_1:
        return Connect(protocol, level)
    flags, keepalive, client_id = body.number(1), body.number(2), body.text()
    will = Will(body.text(), body.binary(), flags >> 3 & 3, bool(flags & 0x20)) if flags & 0x04 else None
    username = body.text() if flags & 0x80 else None
    password = body.binary() if flags & 0x40 else None
    return Connect(protocol, level, bool(flags & 0x02), keepalive, client_id, will, username, password)


def _publish(first: int, body: _Body) -> Publish:
    qos, topic = first >> 1 & 3, body.text()
    packet_id = body.number(2) if qos else 0
    return Publish(topic, body.rest(), qos, bool(first & 1), bool(first & 8), packet_id)


def _filters(body: _Body) -> Iterator[tuple[str, int]]:
    while body.more:
        yield body.text(), body.number(1)


def _names(body: _Body) -> Iterator[str]:
    while body.more:
        yield body.text()


# --- what the broker sends --------------------------------------------------------------------------------------------


def connack(code: int, *, session_present: bool = False) -> bytes:
    """Return a CONNACK [3.2]."""
    return bytes([0x20, 2, session_present and code == CONNACK_ACCEPTED, code])


def suback(packet_id: int, codes: list[int]) -> bytes:
    """Return a SUBACK [3.9] with the granted QoS of each filter."""
    return _packet(0x90, packet_id.to_bytes(2) + bytes(codes))


def unsuback(packet_id: int) -> bytes:
    """Return an UNSUBACK [3.11]."""
    return _packet(0xB0, packet_id.to_bytes(2))


def puback(packet_id: int) -> bytes:
    """Return a PUBACK [3.4]."""
    return _packet(0x40, packet_id.to_bytes(2))


def pingresp() -> bytes:
    """Return a PINGRESP [3.13]."""
    return _packet(0xD0, b"")


def publish(message: Publish) -> bytes:
    """Return a PUBLISH [3.3]."""
    name = message.topic.encode()
    number = message.packet_id.to_bytes(2) if message.qos else b""
    first = 0x30 | message.dup << 3 | message.qos << 1 | message.retain
    return _packet(first, len(name).to_bytes(2) + name + number + message.payload)


def _packet(first: int, body: bytes) -> bytes:
    length, size = bytearray(), len(body)
    while True:
        size, low = divmod(size, 128)
        length.append(low | (_CONTINUES if size else 0))
        if not size:
            return bytes([first, *length]) + body
