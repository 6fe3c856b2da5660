"""A TCP proxy between the gateway and its broker: it counts packets, cuts connections and turns them away."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from support.wire import Kind, Packet


class Proxy:
    """Forwards packet by packet. `to_broker` and `to_gateway` count them by kind; `connects` counts connections.

    `last_connect` is the body of the last CONNECT, `cut_after` the kind of packet after which to cut every connection,
    `closed` says that connections are accepted and closed at once.
    """

    def __init__(self, target_port: Callable[[], int]) -> None:
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connects = 0
        self.to_broker: Counter[int] = Counter()
        self.to_gateway: Counter[int] = Counter()
        self.last_connect = b""
        self.cut_after: Kind | None = None
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
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Cut every connection, as when a link dies: no DISCONNECT, and what is on its way is lost."""
        for writer in self._open:
            writer.transport.abort()

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
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._target_port())
        self._open.add(broker_writer)
        pumps = [
            asyncio.create_task(_pump(reader, broker_writer, self._passed_to_broker)),
            asyncio.create_task(_pump(broker_reader, writer, self._passed_to_gateway)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            broker_writer.transport.abort()
            writer.transport.abort()
            self._open.discard(broker_writer)
            await asyncio.gather(*pumps, return_exceptions=True)

    def _passed_to_broker(self, packet: Packet) -> None:
        self.to_broker[packet.kind] += 1
        if packet.kind == Kind.CONNECT:
            self.last_connect = packet.body

    def _passed_to_gateway(self, packet: Packet) -> None:
        self.to_gateway[packet.kind] += 1
        if packet.kind == self.cut_after:
            raise ConnectionAbortedError


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[Packet], None]) -> None:
    while True:
        packet = await _packet(reader)
        writer.write(packet.encode())
        await writer.drain()
        passed(packet)


async def _packet(reader: asyncio.StreamReader) -> Packet:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            break
    return Packet(first >> 4, first & 0xF, await reader.readexactly(length))
