"""A TCP proxy on loopback that does to connections what networks do: cut, delay, stall, and let half of something pass.

`Proxy` passes on whatever bytes come; `MqttProxy` passes on packet by packet, so that a half is the half of a packet.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.wire import Packet

_READ_BYTES = 65_536


class Direction(StrEnum):
    """Where something is on its way to: the `server` behind the proxy, or the `client` that connected to it."""

    SERVER = "server"
    CLIENT = "client"


@dataclass
class ProxiedConnection:
    """One connection through the proxy; `notes` is for the test that watches it."""

    notes: dict[str, object] = field(default_factory=dict)


class Proxy:
    """Forwards to a port that is asked for at each connection.

    `closed` says that connections are accepted and closed at once, `delay_seconds` holds back everything that passes,
    `connects` counts connections.
    """

    def __init__(self, target_port: Callable[[], int]) -> None:
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._halve = False
        self.port = 0
        self.connects = 0
        self.delay_seconds = 0.0
        self.closed = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        self.resume()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Cut every connection, as when a link dies: no DISCONNECT, and what is on its way is lost."""
        for writer in self._open:
            writer.transport.abort()

    def halve(self) -> None:
        """Let half of the next piece pass, then cut its connection."""
        self._halve = True

    def stall(self) -> None:
        """Let nothing pass any more, until `resume`; connections stay."""
        self._flows.clear()

    def resume(self) -> None:
        """Let everything pass again, what was held back first."""
        self._flows.set()

    async def next_piece(self, reader: asyncio.StreamReader) -> bytes:
        """What is passed on in one go. Raises IncompleteReadError or OSError at the end."""
        piece = await reader.read(_READ_BYTES)
        if not piece:
            raise asyncio.IncompleteReadError(b"", None)
        return piece

    async def connect_onwards(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server behind the proxy."""
        return await asyncio.open_connection("127.0.0.1", self._target_port())

    def record_incoming(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:
        """Hear of a piece before it is passed on."""

    def record_forwarded(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:
        """Hear of a piece that was passed on."""

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if not self.closed:
                await self._join(reader, writer)
        self._open.discard(writer)
        writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self.connect_onwards()
        self._open.add(server_writer)
        line = ProxiedConnection()
        pumps = [
            asyncio.create_task(self._pump(line, Direction.SERVER, reader, server_writer)),
            asyncio.create_task(self._pump(line, Direction.CLIENT, server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.transport.abort()
            writer.transport.abort()
            self._open.discard(server_writer)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, line: ProxiedConnection, towards: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            piece = await self.next_piece(reader)
            self.record_incoming(line, towards, piece)
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._flows.wait()
            if self._halve:
                await self._pass_half(piece, writer)
            writer.write(piece)
            await writer.drain()
            self.record_forwarded(line, towards, piece)

    async def _pass_half(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        self._halve = False
        writer.write(piece[: len(piece) // 2])
        await writer.drain()
        raise ConnectionAbortedError


class SocketProxy(Proxy):
    """Forwards to a socket in the file system, which is asked for at each connection."""

    def __init__(self, target: Callable[[], Path]) -> None:
        super().__init__(lambda: 0)
        self._target = target

    async def connect_onwards(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the socket."""
        return await asyncio.open_unix_connection(self._target())


class MqttProxy(Proxy):
    """Forwards MQTT packet by packet."""

    async def next_piece(self, reader: asyncio.StreamReader) -> bytes:
        """One packet."""
        head = bytearray(await reader.readexactly(2))
        while head[-1] & 0x80:
            head += await reader.readexactly(1)
        return bytes(head) + await reader.readexactly(_length(bytes(head)))


def packet_of(piece: bytes) -> Packet:
    """A whole packet, taken apart."""
    end = next(place for place in range(1, len(piece)) if not piece[place] & 0x80) + 1
    return Packet(piece[0] >> 4, piece[0] & 0xF, piece[end:])


def _length(head: bytes) -> int:
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(head[1:]))
