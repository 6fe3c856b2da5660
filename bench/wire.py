"""Packets of MQTT 3.1.1 that the measured devices send and receive (OASIS MQTT 3.1.1, chapter 3)."""

from __future__ import annotations

import struct
from typing import Final

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
ACK_BYTES: Final = 4
"""Length of a CONNACK, and of a PUBACK."""

CONNECTED: Final = b"\x20\x02\x00\x00"
"""CONNACK: accepted, no session."""
DISCONNECT: Final = b"\xe0\x00"
_USERNAME_PASSWORD_CLEAN: Final = 0b1100_0010
_KEEPALIVE_SECONDS: Final = 600
_LENGTH_BYTES: Final = 4


def connect(user: str, password: str) -> bytes:
    """Return CONNECT with a clean session; the client id is the user name, as the broker sets it anyway."""
    head = _text(b"MQTT") + struct.pack("!BBH", 4, _USERNAME_PASSWORD_CLEAN, _KEEPALIVE_SECONDS)
    return _packet(0x10, head + _text(user.encode()) * 2 + _text(password.encode()))


def publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    """Return PUBLISH at QoS 1, not retained."""
    return _packet(0x32, _text(topic.encode()) + struct.pack("!H", packet_id) + payload)


def publish_retained(topic: str, payload: bytes) -> bytes:
    """Return PUBLISH at QoS 0, retained."""
    return _packet(0x31, _text(topic.encode()) + payload)


def payload(publish_body: bytes) -> bytes:
    """Return the payload of a PUBLISH at QoS 1."""
    (topic_length,) = struct.unpack_from("!H", publish_body)
    return publish_body[4 + topic_length :]


def subscribe(topic: str) -> bytes:
    """Return SUBSCRIBE to one topic at QoS 1."""
    return _packet(0x82, struct.pack("!H", 1) + _text(topic.encode()) + b"\x01")


def puback(publish_body: bytes) -> bytes:
    """Return PUBACK for a PUBLISH at QoS 1."""
    (topic_length,) = struct.unpack_from("!H", publish_body)
    return _packet(0x40, publish_body[2 + topic_length : 4 + topic_length])


def take_packet(buffer: bytearray) -> tuple[int, bytes] | None:
    """Remove the first whole packet from the buffer. Return its type and the bytes after its fixed header."""
    length = 0
    for position in range(1, min(len(buffer), _LENGTH_BYTES + 1)):
        digit = buffer[position]
        length |= (digit & 0x7F) << 7 * (position - 1)
        if not digit & 0x80:
            return _cut(buffer, position + 1, length)
    return None


def _cut(buffer: bytearray, start: int, length: int) -> tuple[int, bytes] | None:
    if len(buffer) < start + length:
        return None
    found = buffer[0] >> 4, bytes(buffer[start : start + length])
    del buffer[: start + length]
    return found


def _packet(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray([first])
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded) + body


def _text(raw: bytes) -> bytes:
    return struct.pack("!H", len(raw)) + raw
