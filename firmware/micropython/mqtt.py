"""MQTT 3.1.1 client with the part of the protocol that a device needs: QoS 1, a will, one message at a time."""

import asyncio
import struct
import time

import net

CONFIRM_SECONDS = 10
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"
NUMBER = b"\x00\x01"  # of each message: the next one is sent after the PUBACK of the one before
NOT_AUTHORISED = (4, 5)  # return codes of CONNACK: bad user name or password, not authorised


class RefusedError(Exception):
    """The broker refused user name and password."""


def field(data):
    """Return bytes with their length before them."""
    return struct.pack(">H", len(data)) + data


class Mqtt:
    """One connection. `received` gets each message: its topic and payload, which is None if it was too long.

    Each method raises OSError, EOFError or asyncio.TimeoutError when the connection is broken. It is closed then.
    """

    def __init__(self, streams, keepalive, longest):
        self.reader, self.writer = streams
        self.keepalive = keepalive  # seconds
        self.longest = longest  # bytes of a payload; more is read and dropped, so that it cannot fill the heap
        self.received = []
        self._pinged = False
        self._sent_at = time.ticks_ms()

    async def connect(self, client_id, password, will_topic, will):
        """Send CONNECT with a persistent session and a retained will at QoS 1, and wait for CONNACK.

        Raises RefusedError for a wrong password, OSError for every other answer.
        """
        flags = 0x80 | 0x40 | 0x20 | 0x08 | 0x04  # user name, password, retained will with QoS 1; clean session off
        body = field(b"MQTT") + struct.pack(">BBH", 4, flags, self.keepalive)
        for each in (client_id, will_topic, will, client_id, password):
            body += field(each)
        await self._send(CONNECT, body)
        code = (await self._wait_for(CONNACK))[1]
        if code in NOT_AUTHORISED:
            raise RefusedError(f"CONNACK {code}")
        if code:
            raise OSError(f"CONNACK {code}")

    async def subscribe(self, topics):
        """Subscribe to (topic, QoS) pairs, and wait until all are granted."""
        body = NUMBER
        for topic, qos in topics:
            body += field(topic.encode()) + bytes([qos])
        await self._send(SUBSCRIBE, body)
        if max((await self._wait_for(SUBACK))[2:]) > 1:
            raise OSError("the broker refused a subscription to one of this device's own topics")

    async def publish(self, topic, payload, retain=False):
        """Publish with QoS 1, and wait for the PUBACK."""
        await self._send(PUBLISH | 2 | retain, field(topic.encode()) + NUMBER + payload)
        await self._wait_for(PUBACK)

    async def poll(self, milliseconds):
        """Receive a packet if one arrives in this time. Send a PINGREQ when there is silence."""
        if time.ticks_diff(time.ticks_ms(), self._sent_at) > self.keepalive * 500:
            if self._pinged:
                raise OSError("the broker did not answer a PINGREQ")
            self._pinged = True
            await self._write(PINGREQ)
        try:
            first = await asyncio.wait_for_ms(self.reader.readexactly(1), milliseconds)
        except asyncio.TimeoutError:
            return
        await asyncio.wait_for(self._receive(first), self.keepalive)

    async def leave(self):
        """Send DISCONNECT, which discards the will. Without it the broker publishes the will."""
        await self._write(DISCONNECT)

    def close(self):
        """Close the socket."""
        net.close(self.writer)

    async def _send(self, kind, body):
        """Send a packet: its first byte, the length of the rest in groups of seven bits, the rest."""
        head, length = bytearray([kind]), len(body)
        while length > 127:
            head.append(length & 127 | 128)
            length >>= 7
        head.append(length)
        await self._write(bytes(head) + body)

    async def _write(self, data):
        self.writer.write(data)
        await self.writer.drain()
        self._sent_at = time.ticks_ms()

    async def _wait_for(self, wanted):
        """Receive packets up to one of this kind, and return what it says."""
        kind = None
        while kind != wanted:
            first = await asyncio.wait_for(self.reader.readexactly(1), CONFIRM_SECONDS)
            kind, body = await asyncio.wait_for(self._receive(first), CONFIRM_SECONDS)
        return body

    async def _receive(self, first):
        """Process the packet with this first byte; return it, and what follows the length unless it is a message."""
        kind = first[0]
        length = await self._length()
        self._pinged = False
        if kind & 0xF0 == PUBLISH:
            await self._message(kind >> 1 & 3, length)
            return kind, b""
        if length > 64:
            raise OSError("the broker sent a packet that is too long")
        return kind, await self.reader.readexactly(length)

    async def _length(self):
        length = 0
        for shift in (0, 7, 14, 21):
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            if byte < 128:
                return length
        raise OSError("the broker sent a malformed length")

    async def _message(self, qos, left):
        size = struct.unpack(">H", await self.reader.readexactly(2))[0]
        left -= 2 + size + 2 * (qos > 0)
        if qos > 1 or size > 512 or left < 0:
            raise OSError("the broker sent a malformed message")
        topic = (await self.reader.readexactly(size)).decode()
        number = await self.reader.readexactly(2 * qos)
        if sum([len(payload or b"") for _, payload in self.received]) > self.longest:
            raise OSError("more commands than memory")  # they are retained, so they arrive again
        payload = await self.reader.readexactly(left) if left <= self.longest else None
        while payload is None and left:
            left -= len(await self.reader.readexactly(min(left, 256)))
        if qos:
            await self._send(PUBACK, number)
        self.received.append((topic, payload))
