"""Minimal broker that only counts: ``python -m bench.sink``. With it the sender is the limit, not the receiver.

It accepts every client and acknowledges every heartbeat, as many at once as arrived at once. It reads only the first
bytes of a connection, which give the length of a heartbeat. All heartbeats of a load have one length and numbers
without gaps, so it counts bytes. It prints its port, and runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import struct
from typing import Final

from bench import wire
from bench.broker import HOST

_PUBLISH_QOS_1: Final = 0x32
_ACCEPTED: Final = b"\x20\x02\x00\x00"
_IDS: Final = 0xFFFF
_BUFFER_BYTES: Final = 1 << 18
_BACKLOG: Final = 4_096
_ACKS: Final = b"".join(b"\x40\x02" + struct.pack("!H", number) for number in range(1, _IDS + 1))
"""All PUBACKs in order, so that a run of them is a slice."""


class Connection(asyncio.BufferedProtocol):
    """One device. All connections read into the same buffer, whose content is not kept."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._greeted = False
        self._length = 0
        self._received = 0
        self._acknowledged = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the shared buffer."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Answer the received packets: a CONNECT, which is small enough to arrive whole, or heartbeats."""
        if not self._greeted:
            self._greeted = True
            self._transport.write(_ACCEPTED)
        elif self._length or self._buffer[0] == _PUBLISH_QOS_1:
            self._length = self._length or _length(self._buffer)
            self._received += nbytes
            self._acknowledge(self._received // self._length)

    def _acknowledge(self, upto: int) -> None:
        while self._acknowledged < upto:
            first = self._acknowledged % _IDS
            count = min(upto - self._acknowledged, _IDS - first)
            self._transport.write(_ACKS[first * wire.ACK_BYTES : (first + count) * wire.ACK_BYTES])
            self._acknowledged += count


def _length(buffer: bytearray) -> int:
    """Return the length of a whole packet of less than 16 KiB, with its fixed header."""
    low, high = buffer[1], buffer[2]
    return (low & 0x7F) + (high << 7) + 3 if low & 0x80 else low + 2


async def main() -> None:
    """Serve until SIGTERM."""
    stop, loop, buffer = asyncio.Event(), asyncio.get_running_loop(), bytearray(_BUFFER_BYTES)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(buffer), HOST, 0, backlog=_BACKLOG)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - the benchmark reads it
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
