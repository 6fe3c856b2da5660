"""MQTT 3.1.1 client with the part of the protocol that a device needs: QoS 1, a will, one message at a time."""

import asyncio
import struct
import time

import net

CONFIRM_SECONDS = 10
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
NOT_AUTHORISED = (4, 5)  # return codes of CONNACK: bad user name or password, not authorised


class RefusedError(Exception):
    """The broker refused user name and password."""


def field(data):
    """Return bytes with their length before them."""
    return struct.pack(">H", len(data)) + data


def packet(kind, body):
    """Return a packet: its first byte, the length of the rest in groups of seven bits, the rest."""
    length, head = len(body), bytearray([kind])
    while True:
        head.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes(head) + body


class Mqtt:
    """One connection. `on_message(topic, payload)` gets each message; the payload is None if it was too long."""

    def __init__(self, streams, keepalive, longest):
        self.reader, self.writer = streams
        self.keepalive = keepalive  # seconds
        self.longest = longest  # bytes of a payload; more is read and dropped, so that it cannot fill the heap
        self.on_message = None
        self.is_open = True
        self._writing = asyncio.Lock()  # a PUBACK of the reader must not fall into a message of the main task
        self._confirmed = asyncio.Event()
        self._last_id = 0
        self._sent_at = time.ticks_ms()

    async def connect(self, client_id, password, will_topic, will):
        """Send CONNECT with a persistent session and a retained will at QoS 1, and wait for CONNACK.

        Raises RefusedError for a wrong password, OSError for every other answer.
        """
        flags = 0x80 | 0x40 | 0x20 | 0x08 | 0x04  # user name, password, retained will with QoS 1; clean session off
        body = field(b"MQTT") + struct.pack(">BBH", 4, flags, self.keepalive)
        for each in (client_id, will_topic, will, client_id, password):
            body += field(each if isinstance(each, bytes) else each.encode())
        await self._send(packet(0x10, body))
        kind, length = await asyncio.wait_for(self._head(), CONFIRM_SECONDS)
        if kind != 0x20 or length != 2:
            raise OSError("the broker did not answer with CONNACK")
        code = (await self.reader.readexactly(2))[1]
        if code in NOT_AUTHORISED:
            raise RefusedError(f"CONNACK {code}")
        if code:
            raise OSError(f"CONNACK {code}")

    async def subscribe(self, topics):
        """Subscribe to (topic, QoS) pairs, and wait until all are granted."""
        body = self._next_id()
        for topic, qos in topics:
            body += field(topic.encode()) + bytes([qos])
        await self._send(packet(0x82, body))
        while await asyncio.wait_for(self._receive(), CONFIRM_SECONDS) != 0x90:
            pass

    async def publish(self, topic, payload, retain=False, seconds=CONFIRM_SECONDS):
        """Publish with QoS 1, and wait for the PUBACK while another task runs `run`. Raises OSError without one."""
        self._confirmed.clear()
        body = field(topic.encode()) + self._next_id() + payload
        await self._send(packet(0x33 if retain else 0x32, body))
        try:
            await asyncio.wait_for(self._confirmed.wait(), seconds)
        except asyncio.TimeoutError:
            self.close()
        if not self.is_open:
            raise OSError("the link went down before the PUBACK")

    async def run(self):
        """Receive until the connection ends, which raises OSError or EOFError. Send a PINGREQ when there is silence."""
        pinged = False
        while self.is_open:
            silent = time.ticks_diff(time.ticks_ms(), self._sent_at) / 1000
            try:
                first = await asyncio.wait_for(self.reader.readexactly(1), max(0.01, self.keepalive / 2 - silent))
            except asyncio.TimeoutError:
                if pinged:
                    raise OSError("the broker did not answer a PINGREQ")
                pinged = True
                await self._send(PINGREQ)
                continue
            pinged = False
            await asyncio.wait_for(self._receive(first[0]), self.keepalive)

    async def leave(self):
        """Send DISCONNECT, which discards the will."""
        await self._send(DISCONNECT)
        self.close()

    def close(self):
        """Close the socket. Without DISCONNECT the broker publishes the will."""
        if self.is_open:
            self.is_open = False
            self._confirmed.set()
            net.close(self.writer)

    def _next_id(self):
        self._last_id = self._last_id % 65535 + 1
        return struct.pack(">H", self._last_id)

    async def _send(self, data):
        async with self._writing:
            if not self.is_open:
                raise OSError("the link is down")
            self.writer.write(data)
            await self.writer.drain()
            self._sent_at = time.ticks_ms()

    async def _head(self, kind=None):
        """Return the first byte of a packet and the length of the rest."""
        kind = (await self.reader.readexactly(1))[0] if kind is None else kind
        length = 0
        for shift in (0, 7, 14, 21):
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            if byte < 128:
                return kind, length
        raise OSError("the broker sent a malformed length")

    async def _receive(self, kind=None):
        """Process one packet, and return its first byte."""
        kind, length = await self._head(kind)
        if kind & 0xF0 == 0x30:
            await self._message(kind, length)
        elif length > 64:
            raise OSError("the broker sent a packet that is too long")
        else:
            self._control(kind, await self.reader.readexactly(length) if length else b"")
        return kind

    def _control(self, kind, body):
        if kind == 0x40 and struct.unpack(">H", body)[0] == self._last_id:
            self._confirmed.set()
        elif kind == 0x90 and max(body[2:]) > 1:
            raise OSError("the broker refused a subscription to one of this device's own topics")

    async def _message(self, kind, length):
        size = struct.unpack(">H", await self.reader.readexactly(2))[0]
        qos, rest = kind >> 1 & 3, length - 2 - size
        if qos > 1 or size > 512 or rest < 2 * qos:
            raise OSError("the broker sent a malformed message")
        topic = (await self.reader.readexactly(size)).decode()
        number = await self.reader.readexactly(2) if qos else b""
        payload = await self._payload(rest - len(number))
        if qos:
            await self._send(packet(0x40, number))
        self.on_message(topic, payload)

    async def _payload(self, length):
        if length <= self.longest:
            return await self.reader.readexactly(length) if length else b""
        while length:
            length -= len(await self.reader.readexactly(min(length, 256)))
        return None
