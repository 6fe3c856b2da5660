"""Takeover of a client's session in order to end it, in the few bytes of MQTT 5 that this needs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from gateway.mqtt.probe import ProbeError, ProbeRefusedError, ProbeTarget

_CONNECT, _CONNACK, _DISCONNECT = 0x10, 0x20, b"\xe0\x00"
_WITH_USERNAME_AND_PASSWORD: Final = 0xC0
_KEEPALIVE: Final = b"\x00\x3c"
_NO_PROPERTIES: Final = b"\x00"
"""No properties, so no session expiry: the session ends with the connection."""
_LONGEST: Final = 127
_READ_BYTES: Final = 1 << 16


async def end_session(target: ProbeTarget, username: str, password: str) -> None:
    """Connect under this name, with the same client id, and disconnect, so that no session of it is left.

    The session is resumed, not started clean. The broker then drops its last will instead of sending it.

    Raises:
        ProbeRefusedError: the broker refuses this user.
        ProbeError: it cannot be reached, or went away.
    """
    try:
        reader, writer = await asyncio.open_connection(target.address.host, target.address.port, ssl=target.tls)
    except OSError as error:
        raise ProbeError(str(error)) from error
    try:
        writer.write(_connect(username, password))
        header = await reader.readexactly(2)
        answer = await reader.readexactly(header[1])
        if header[0] != _CONNACK or answer[1] != 0:
            raise ProbeRefusedError(f"{username} was answered {answer.hex()}")
        writer.write(_DISCONNECT)
        while await reader.read(_READ_BYTES):  # what was queued, until the broker has closed: the session has ended
            pass
    except (OSError, asyncio.IncompleteReadError, IndexError) as error:
        raise ProbeError(str(error) or "the broker closed the connection") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _connect(username: str, password: str) -> bytes:
    header = _text("MQTT") + bytes([5, _WITH_USERNAME_AND_PASSWORD]) + _KEEPALIVE + _NO_PROPERTIES
    body = header + _text(username) + _text(username) + _text(password)
    return bytes([_CONNECT]) + _length(len(body)) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2) + encoded


def _length(length: int) -> bytes:
    """Return the remaining length of a packet, encoded; here it is below 16,384."""
    return bytes([length]) if length <= _LONGEST else bytes([length & _LONGEST | 0x80, length >> 7])
