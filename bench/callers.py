"""Many lean HTTP/1.1 connections that share a list of requests. Each sends its next request after its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from bench.broker import HOST
from bench.process import HANGS_SECONDS, BenchError

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_STATUS: Final = slice(9, 12)  # behind "HTTP/1.1 "
_OK: Final = b"200"


@dataclass(frozen=True)
class Answered:
    """Start of the first request and end of the last (seconds of the monotonic clock), and the seconds of each."""

    began: float
    ended: float
    seconds: tuple[float, ...]


class Callers:
    """Connections and their requests."""

    def __init__(self, port: int, connections: Sequence[_Connection]) -> None:
        self._port = port
        self._connections = list(connections)

    @property
    def open(self) -> int:
        """Return how many of the connections are open. A server closes one that is idle for some seconds."""
        return sum(each.is_open for each in self._connections)

    async def call(self, requests: Sequence[bytes]) -> Answered:
        """Send all requests, each on the next free connection, and return after the last answer.

        Connections that the server closed since the last call are opened again first, outside of the measured time.

        Raises:
            BenchError: one was refused, a connection was closed or cannot be opened again, or no answer arrives within
                the time limit.
        """
        await self._open_again()
        waiting = iter(requests)
        taken: list[float] = []
        done = [asyncio.get_running_loop().create_future() for _ in self._connections]
        began = time.perf_counter()
        for connection, end in zip(self._connections, done, strict=True):
            connection.work(waiting, taken, end)
        try:
            async with asyncio.timeout(HANGS_SECONDS):
                await asyncio.gather(*done)
        except TimeoutError:
            raise BenchError(f"{len(taken)} of {len(requests)} requests were answered, then nothing came") from None
        return Answered(began, time.perf_counter(), tuple(taken))

    def leave(self) -> None:
        """Close the connections."""
        for each in self._connections:
            each.leave()

    async def _open_again(self) -> None:
        for place, each in enumerate(self._connections):
            if not each.is_open:
                self._connections[place] = await _connected(self._port)


class _Connection(asyncio.Protocol):
    """One of the connections."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._end: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_exception(BenchError(f"the server closed a connection{f': {exc}' if exc else ''}"))

    def work(self, waiting: Iterator[bytes], taken: list[float], end: asyncio.Future[None]) -> None:
        self._waiting, self._taken, self._end = waiting, taken, end
        if self.is_open:
            self._next()
        else:  # a write would be dropped without a word
            self.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(_HEAD_END)
        if not found or len(rest) < _content_length(head):
            return
        self._taken.append(time.perf_counter() - self._sent)
        self._buffer.clear()
        if head[_STATUS] != _OK and self._end is not None:
            self._end.set_exception(BenchError(f"a request was answered with {head[_STATUS].decode()}"))
        else:
            self._next()

    def leave(self) -> None:
        self._end = None
        self._transport.close()

    def _next(self) -> None:
        request = next(self._waiting, None)
        if request is not None:
            self._sent = time.perf_counter()
            self._transport.write(request)
        elif self._end is not None:
            self._end.set_result(None)


def _content_length(head: bytearray) -> int:
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)]
    return int(lengths[0].removeprefix(_LENGTH))


def request(method: str, path: str, api_key: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    kind = "Content-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {api_key}\r\n{kind}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def callers(port: int, count: int) -> AsyncIterator[Callers]:
    """Open so many connections, and close them at the end.

    Raises:
        BenchError: the server cannot be reached.
    """
    opened = Callers(port, [await _connected(port) for _ in range(count)])
    try:
        yield opened
    finally:
        opened.leave()


async def _connected(port: int) -> _Connection:
    try:
        return (await asyncio.get_running_loop().create_connection(_Connection, HOST, port))[1]
    except OSError as error:
        raise BenchError(f"no connection to the server: {error}") from error
