"""Callers whose connections the server closes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from bench.broker import HOST
from bench.callers import callers, request
from bench.process import BenchError
from tests.support.wait import eventually

HEALTH = request("GET", "/health", "key")
CONNECTIONS = 2


@asynccontextmanager
async def closing_server(answer: bytes) -> AsyncIterator[int]:
    """A server that answers one request on each connection and then closes it; yields its port.

    Its end waits for that of each connection, all of which the callers have closed by then.
    """
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError):  # it was closed without a request
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*(each for each in serving if each is not None))


async def test_connections_closed_between_calls_are_opened_again() -> None:
    """A server closes connections that are idle while the other side is measured."""
    async with (
        closing_server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port,
        callers(port, CONNECTIONS) as opened,
    ):
        for _ in range(2):
            assert len((await opened.call([HEALTH] * CONNECTIONS)).seconds) == CONNECTIONS
            await eventually(lambda: opened.open == 0, "the server closed all connections")


async def test_a_connection_closed_before_its_answer_ends_the_measurement() -> None:
    """At once: nothing is sent again, since the figures would count it as one request."""
    async with closing_server(b"") as port, callers(port, CONNECTIONS) as opened:
        with pytest.raises(BenchError, match="closed a connection"):
            await opened.call([HEALTH])
