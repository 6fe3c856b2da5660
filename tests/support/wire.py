"""Raw MQTT 3.1.1 packets over an asyncio stream, for tests of what really travels (OASIS MQTT 3.1.1, chapter 3).

Only as much of a client as such a test needs: nothing is acknowledged, answered or sent again unless the test says so.

    async with Wire.open(broker.host, broker.port) as device:
        assert await device.connect("dev_A", "dev_A", "secret") == ACCEPTED
        await device.subscribe("devices/dev_A/commands/reboot")
        message = await device.read_publish()
"""

import asyncio
import contextlib
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

ACCEPTED = 0
UNACCEPTABLE_PROTOCOL = 1
IDENTIFIER_REJECTED = 2
BAD_CREDENTIALS = 4
NOT_AUTHORISED = 5
CLOSED = -1
"""What `Wire.connect` returns when the server closed the connection without an answer."""

SUBSCRIPTION_REFUSED = 0x80
GUARD_SECONDS = 60.0


class Kind(IntEnum):
    """Control packet types [MQTT 2.2.1]."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class ConnectionClosedError(Exception):
    """The server closed the connection."""


@dataclass(frozen=True)
class Packet:
    """One control packet: its type, the four flag bits, and everything after the fixed header."""

    kind: int
    flags: int
    body: bytes

    def encode(self) -> bytes:
        """The packet as it travels."""
        return bytes([self.kind << 4 | self.flags]) + remaining_length(len(self.body)) + self.body


@dataclass(frozen=True)
class Message:
    """What a PUBLISH carries. `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    packet_id: int


@dataclass(frozen=True)
class Will:
    """A last will."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


def remaining_length(length: int) -> bytes:
    """The variable length of a fixed header [MQTT 2.2.3]."""
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


def text(value: str | bytes) -> bytes:
    """A length-prefixed field; bytes are taken as they are, so that a test can send what is not UTF-8."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def connect_packet(
    client_id: str,
    username: str | None = None,
    password: str | None = None,
    *,
    clean: bool = True,
    keepalive: int = 60,
    will: Will | None = None,
    level: int = 4,
) -> Packet:
    """CONNECT; `keepalive` in seconds, 0 for none, `level` 4 for MQTT 3.1.1."""
    flags = clean << 1 | (password is not None) << 6 | (username is not None) << 7
    payload = text(client_id)
    if will:
        flags |= 1 << 2 | will.qos << 3 | will.retain << 5
        payload += text(will.topic) + text(will.payload)
    payload += b"".join(text(field) for field in (username, password) if field is not None)
    return Packet(Kind.CONNECT, 0, text("MQTT") + struct.pack("!BBH", level, flags, keepalive) + payload)


def publish_packet(
    topic: str | bytes, payload: bytes, *, qos: int = 1, retain: bool = False, packet_id: int = 1
) -> Packet:
    """PUBLISH; the packet id is left out at QoS 0."""
    identifier = struct.pack("!H", packet_id) if qos else b""
    return Packet(Kind.PUBLISH, qos << 1 | retain, text(topic) + identifier + payload)


def subscribe_packet(*filters: str, qos: int = 1, packet_id: int = 1) -> Packet:
    """SUBSCRIBE to all `filters` at the same QoS."""
    wanted = b"".join(text(topic_filter) + bytes([qos]) for topic_filter in filters)
    return Packet(Kind.SUBSCRIBE, 0b0010, struct.pack("!H", packet_id) + wanted)


def parse_publish(packet: Packet) -> Message:
    """Take a PUBLISH apart."""
    length = int.from_bytes(packet.body[:2])
    rest = packet.body[2 + length :]
    qos = packet.flags >> 1 & 3
    packet_id = int.from_bytes(rest[:2]) if qos else 0
    return Message(
        topic=packet.body[2 : 2 + length].decode(),
        payload=rest[2:] if qos else rest,
        qos=qos,
        retain=bool(packet.flags & 1),
        duplicate=bool(packet.flags & 8),
        packet_id=packet_id,
    )


class Wire:
    """One connection. Every read fails with TimeoutError when nothing comes for GUARD_SECONDS: then it hangs.

    `inbox` holds messages that came before an answer that was waited for; `session_present` is the CONNACK's flag.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._packet_id = 0
        self._said: set[bytes] = set()
        self.inbox: deque[Message] = deque()
        self.session_present = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """A connection on which nothing has been said; closed without DISCONNECT, so a will is sent."""
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or any bytes, in a single write."""
        self._writer.write(b"".join(one if isinstance(one, bytes) else one.encode() for one in packets))
        await self._writer.drain()

    async def read_packet(self) -> Packet:
        """The next packet. Raises ConnectionClosedError at the end of the stream."""
        async with asyncio.timeout(GUARD_SECONDS):
            return await self.next_packet()

    async def next_packet(self) -> Packet:
        """The same, however long it takes."""
        try:
            first = (await self._reader.readexactly(1))[0]
            return Packet(first >> 4, first & 0xF, await self._reader.readexactly(await self._read_length()))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ConnectionClosedError from error

    async def connect(
        self,
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        *,
        clean: bool = True,
        keepalive: int = 60,
        will: Will | None = None,
    ) -> int:
        """CONNECT and the return code of the CONNACK, or CLOSED without one."""
        await self.send(connect_packet(client_id, username, password, clean=clean, keepalive=keepalive, will=will))
        try:
            answer = await self._expect(Kind.CONNACK)
        except ConnectionClosedError:
            return CLOSED
        self.session_present = bool(answer.body[0] & 1)
        return answer.body[1]

    async def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        """SUBSCRIBE and the return codes, one a filter."""
        await self.send(subscribe_packet(*filters, qos=qos, packet_id=self._next_id()))
        return list((await self._expect(Kind.SUBACK)).body[2:])

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """PUBLISH, and at QoS 1 wait for its PUBACK."""
        await self.send(publish_packet(topic, payload, qos=qos, retain=retain, packet_id=self._next_id()))
        if qos == 1:
            await self._expect(Kind.PUBACK)

    async def say(self, topic: str, *payloads: bytes, retain: bool = False) -> None:
        """PUBLISH each, in a single write, and wait until the server has read them.

        Their PUBACKs may wait for another client; they are skipped where another answer is waited for.
        """
        packets = []
        for payload in payloads:
            packet_id = self._next_id()
            self._said.add(struct.pack("!H", packet_id))
            packets.append(publish_packet(topic, payload, retain=retain, packet_id=packet_id))
        await self.send(*packets)
        await self.ping()

    @property
    def waits_for(self) -> int:
        """How many PUBACKs of what it said with `say` were not seen yet."""
        return len(self._said)

    async def read_publish(self) -> Message:
        """The next message; not acknowledged (see `acknowledge`)."""
        if self.inbox:
            return self.inbox.popleft()
        return parse_publish(await self._expect(Kind.PUBLISH))

    async def acknowledge(self, message: Message) -> None:
        """PUBACK for a message at QoS 1."""
        await self.send(Packet(Kind.PUBACK, 0, struct.pack("!H", message.packet_id)))

    async def read_until(self, topic: str) -> list[Message]:
        """The messages up to and without the first on `topic`: with a publisher's end marker there, all that arrived.

        Each is acknowledged.
        """
        messages: list[Message] = []
        while (message := await self.read_publish()).topic != topic:
            messages.append(message)
            await self.acknowledge(message)
        await self.acknowledge(message)
        return messages

    async def read_retained(self, mark: str) -> dict[str, bytes]:
        """Topic and payload of what is retained, read until the first message on `mark`.

        A message that is published meanwhile counts, too. An empty one clears its topic.
        """
        held: dict[str, bytes] = {}
        for each in await self.read_until(mark):
            if each.payload:
                held[each.topic] = each.payload
            else:
                held.pop(each.topic, None)
        return held

    async def ping(self) -> None:
        """PINGREQ and PINGRESP: everything sent before has been read by the server."""
        await self.send(Packet(Kind.PINGREQ, 0, b""))
        await self._expect(Kind.PINGRESP)

    async def stirred(self) -> bool:
        """Wait, without end, until the server says something (true) or closes the connection (false)."""
        return bool(await self._reader.read(1))

    async def disconnect(self) -> None:
        """DISCONNECT: a clean end, without the will [MQTT-3.14.4-3]; returns when the server has closed."""
        await self.send(Packet(Kind.DISCONNECT, 0, b""))
        await self.closed()

    async def closed(self) -> list[Packet]:
        """Wait until the server closes the connection; what it said before that."""
        packets = []
        with contextlib.suppress(ConnectionClosedError):
            while True:
                packets.append(await self.read_packet())
        return packets

    async def _expect(self, kind: Kind) -> Packet:
        """The next packet must be of this kind; messages that come before an answer are kept for `read_publish`."""
        while (packet := await self.read_packet()).kind != kind or self._is_of_what_was_said(packet):
            if packet.kind == Kind.PUBLISH:
                self.inbox.append(parse_publish(packet))
            else:
                assert self._is_of_what_was_said(packet), f"expected {kind.name}, got {packet}"
                self._said.discard(packet.body)
        return packet

    def _is_of_what_was_said(self, packet: Packet) -> bool:
        return packet.kind == Kind.PUBACK and packet.body in self._said

    async def _read_length(self) -> int:
        length = 0
        for position in range(4):
            digit = (await self._reader.readexactly(1))[0]
            length += (digit & 0x7F) << 7 * position
            if not digit & 0x80:
                break
        return length

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id
