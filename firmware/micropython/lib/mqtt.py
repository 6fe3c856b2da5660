"""MQTT 3.1.1 client with the part of the protocol that a device needs: QoS 1, a will, one message at a time."""

import asyncio
import time

from strict_json import require

CONFIRM_SECONDS = 10
# Each request: its name, the first byte of its packet, and that of the answer.
CONNECT, SUBSCRIBE = ("CONNECT", 0x10, 0x20), ("SUBSCRIBE", 0x82, 0x90)
PUBLISH, PUBLISH_RETAINED = ("PUBLISH", 0x32, 0x40), ("PUBLISH", 0x33, 0x40)
PINGREQ = ("PINGREQ", 0xC0, 0xD0)
MESSAGE, PUBACK, DISCONNECT = 0x30, 0x40, 0xE0
NUMBER = b"\x00\x01"  # of each message: the next one is sent after the PUBACK of the one before
NOT_AUTHORISED = (4, 5)  # return codes of CONNACK: bad user name or password, not authorised


class RefusedError(Exception):
    """The broker refused user name and password."""


def field(data):
    """Return bytes with their length before them."""
    return len(data).to_bytes(2, "big") + data


class Mqtt:
    """One connection. `received` gets each message: its topic and payload, which is None if it was too long.

    Each method raises OSError, ValueError, EOFError or asyncio.TimeoutError when the connection is broken. Close
    `writer` then.
    """

    def __init__(self, streams, keepalive, longest):
        self.reader, self.writer = streams
        self.keepalive = keepalive  # seconds
        self.longest = longest  # bytes of a payload; more is read and dropped, so that it cannot fill the heap
        self.received = []

    async def connect(self, client_id, password, will_topic, will, topics):
        """Connect with a persistent session and a retained will at QoS 1. Subscribe to (topic, QoS) pairs.

        Raises RefusedError for a wrong password, OSError or ValueError for every other refusal.
        """
        flags = 0x80 | 0x40 | 0x20 | 0x08 | 0x04  # user name, password, retained will with QoS 1; clean session off
        body = field(b"MQTT") + bytes([4, flags]) + self.keepalive.to_bytes(2, "big")
        for each in (client_id, will_topic, will, client_id, password):
            body += field(each)
        code = (await self._ask(CONNECT, body))[1]
        if code:
            raise (RefusedError if code in NOT_AUTHORISED else OSError)(f"CONNACK {code}")
        body = NUMBER
        for topic, qos in topics:
            body += field(topic.encode()) + bytes([qos])
        granted = (await self._ask(SUBSCRIBE, body))[2:]
        require(max(granted) < 2, "the broker refused a subscription to one of this device's own topics")

    async def publish(self, topic, payload, retain=False):
        """Publish with QoS 1, and wait for the PUBACK."""
        await self._ask(PUBLISH_RETAINED if retain else PUBLISH, field(topic.encode()) + NUMBER + payload)

    async def poll(self, milliseconds):
        """Receive a packet if one arrives in this time. Send a PINGREQ when there is silence."""
        if time.ticks_diff(time.ticks_ms(), self._sent_at) > self.keepalive * 500:
            await self._ask(PINGREQ, b"", self.keepalive / 2)
        try:
            first = await asyncio.wait_for_ms(self.reader.readexactly(1), milliseconds)
        except asyncio.TimeoutError:
            return
        await asyncio.wait_for(self._receive(first), CONFIRM_SECONDS)

    async def leave(self):
        """Send DISCONNECT, which discards the will. Without it the broker publishes the will."""
        await self._send(DISCONNECT, b"")

    async def _send(self, kind, body):
        """Send a packet: its first byte, the length of the rest in groups of seven bits, the rest."""
        head, length = bytearray([kind]), len(body)
        while length > 127:
            head.append(length & 127 | 128)
            length >>= 7
        head.append(length)
        self.writer.write(bytes(head) + body)
        await self.writer.drain()
        self._sent_at = time.ticks_ms()

    async def _ask(self, request, body, seconds=CONFIRM_SECONDS):
        """Send a request, receive packets up to its answer, and return what that says."""
        name, kind, wanted = request
        await self._send(kind, body)
        try:
            while kind != wanted:
                kind, answer = await asyncio.wait_for(self._receive(b""), seconds)
        except asyncio.TimeoutError:
            raise OSError(f"the broker did not answer a {name}")
        return answer

    async def _receive(self, first):
        """Process a packet whose first byte may be known; return it, and what a packet other than a message says."""
        kind = (first or await self.reader.readexactly(1))[0]
        length = 0
        for shift in (0, 7, 14, 21):
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            if byte < 128:
                break
        is_message = kind & 0xF0 == MESSAGE
        require(byte < 128 and (is_message or length <= 64), "the broker sent a packet that is too long")
        if not is_message:
            return kind, await self.reader.readexactly(length)
        await self._message(kind >> 1 & 3, length)
        return kind, b""

    async def _message(self, qos, left):
        size = int.from_bytes(await self.reader.readexactly(2), "big")
        left -= 2 + size + 2 * qos
        require(qos < 2 and size <= 512 and left >= 0, "the broker sent a malformed message")
        topic = (await self.reader.readexactly(size)).decode()
        number = await self.reader.readexactly(2 * qos)
        # More may be retained, and arrives again.
        require(sum([len(each[1] or b"") for each in self.received]) <= self.longest, "more commands than memory")
        payload = await self.reader.readexactly(left) if left <= self.longest else None
        while payload is None and left:
            left -= len(await self.reader.readexactly(min(left, 256)))
        if qos:
            await self._send(PUBACK, number)
        self.received.append((topic, payload))
