"""One device of a crowd over all its connections: its packets, made beforehand, and the events that it received."""

from __future__ import annotations

import errno
import select
import socket
import time
from contextlib import suppress
from functools import cache
from typing import Final

from bench import load, wire

_ONLINE: Final = b'{"status":"online"}'
_PACKET_ID: Final = 2
_ITS_ACK: Final = b"\0\2"
_READ_BYTES: Final = 1 << 16
_heartbeat = cache(load.heartbeat)


class Device:
    """State of one device. Each packet is sent at once: the socket buffer always has room for so few bytes."""

    def __init__(self, name: str, password: str) -> None:
        self.name = name
        self.sent = self.acknowledged = 0
        """Number of heartbeats; one that is sent again counts once."""
        self.back: float | None = None
        """When it had subscribed, on the monotonic clock, while it is connected."""
        self.told: float | None = None
        """When it received its reset for the first time."""
        self._hello = wire.connect(name, password) + wire.subscribe(f"devices/{name}/commands/factory_reset")
        self._online = wire.publish_retained(f"devices/{name}/status", _ONLINE)
        self._beat_topic = f"devices/{name}/heartbeat"
        self._buffer = bytearray()
        self._unacknowledged = b""
        self._socket: socket.socket | None = None
        self._greeted = False

    def enter(self, address: tuple[str, int]) -> socket.socket | None:
        """Begin to connect; return ``None`` if that is refused at once."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if opened.connect_ex(address) not in (0, errno.EINPROGRESS):
            opened.close()
            return None
        self._socket, self._greeted = opened, False
        return opened

    def look(self, mask: int) -> bool:
        """Handle the events of epoll(7). Return ``False`` when the connection has ended and is closed."""
        try:
            if mask & (select.EPOLLERR | select.EPOLLHUP):
                raise ConnectionError
            if not self._greeted:
                self._send(self._hello)
                self._greeted = True
            if mask & select.EPOLLIN:
                self._hear()
        except OSError:
            self._leave()
            return False
        return True

    def beat(self) -> None:
        """Send the next heartbeat. Without a connection one waits for the next, and later ones are left out."""
        if not self._unacknowledged:
            self._unacknowledged = wire.publish(self._beat_topic, _heartbeat(self.sent), _PACKET_ID)
            self.sent += 1
            if self.back is not None:
                with suppress(OSError):  # the broker has just closed, and epoll reports it next
                    self._send(self._unacknowledged)

    def _hear(self) -> None:
        assert self._socket
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError
        self._buffer += data
        while packet := wire.take_packet(self._buffer):
            self._take(*packet)

    def _take(self, kind: int, body: bytes) -> None:
        if kind == wire.SUBACK:
            self.back = time.monotonic()
            self._send(self._online + self._unacknowledged)
        elif kind == wire.PUBACK and body == _ITS_ACK and self._unacknowledged:
            self._unacknowledged = b""
            self.acknowledged += 1
        elif kind == wire.PUBLISH:
            self._send(wire.puback(body))
            if self.told is None and wire.payload(body):  # an empty payload only clears the topic
                self.told = time.monotonic()

    def _send(self, packets: bytes) -> None:
        assert self._socket
        if self._socket.send(packets) != len(packets):
            raise ConnectionError

    def _leave(self) -> None:
        assert self._socket
        self._socket.close()
        self._socket, self.back = None, None
        self._buffer.clear()
