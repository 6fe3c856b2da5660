"""Sockets that are no connections yet: how many, for how long, at what cost, and what is left for everything else."""

import asyncio
import contextlib
import gc
import os
import ssl
import subprocess
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gateway.http.server import listener
from gateway.http.server.listener import MOST_BEFORE_HANDSHAKE, Listener
from gateway.http.server.server import HttpServer
from gateway.tls.certificates import Files, ServerCertificate
from tests.support.certificates import HOST, make_authority, server_pair, trusting_context
from tests.support.wait import eventually

LONG_SECONDS = 60
CLIENT_HELLO_BEGINS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The smallest application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[HttpServer, ssl.SSLContext]]:
    """HTTPS, and what trusts it."""
    authority = make_authority(folder)
    pair = server_pair(authority)
    certificate = ServerCertificate("http", Files(pair.certificate, pair.key))
    async with asyncio.timeout(LONG_SECONDS), HttpServer(hello, HOST, 0, certificate=certificate) as server:
        yield server, trusting_context(authority)


@asynccontextmanager
async def opened(port: int, number: int, said: bytes = b"") -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many sockets that say this, and no more."""
    pairs = [await asyncio.open_connection(HOST, port) for _ in range(number)]
    try:
        for _, writer in pairs:
            writer.write(said)
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.transport.abort()


async def test_sockets_without_a_handshake_are_few_and_cheap(tmp_path: Path) -> None:
    """More than may shake hands: the oldest go, none costs a TLS buffer, and others are served."""
    gc.collect()  # of the tests before
    async with (
        serving(tmp_path) as (server, context),
        opened(server.address.port, MOST_BEFORE_HANDSHAKE + 50) as silent,
    ):
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(server.url)).text == "hello"
            await eventually(lambda: sum(each.at_eof() for each in silent) >= 50, "the oldest have gone")
            await client.get(server.url)
        assert all(each.at_eof() for each in silent[:40])
        assert not any(each.at_eof() for each in silent[60:])
        assert sum(isinstance(each, SSLProtocol) for each in gc.get_objects()) < 10


@pytest.mark.parametrize("said", [b"", CLIENT_HELLO_BEGINS])
async def test_an_endless_handshake_is_closed(tmp_path: Path, said: bytes) -> None:
    """Whether it says nothing or only begins; who has shaken hands stays."""
    pair = server_pair(authority := make_authority(tmp_path))
    certificate = ServerCertificate("http", Files(pair.certificate, pair.key))
    sockets = listener.bound(HOST, 0, backlog=8)
    port = sockets[0].getsockname()[1]
    met: list[asyncio.BaseTransport] = []

    class Met(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            met.append(transport)

    server = Listener(sockets, Met, tls=certificate.context, handshake_seconds=0.5)
    await server.start_serving()
    try:
        reader, writer = await asyncio.open_connection(HOST, port, ssl=trusting_context(authority))
        await eventually(lambda: met, "one has shaken hands")
        async with opened(port, 3, said) as silent:
            for each in silent:
                with contextlib.suppress(ConnectionError):
                    assert await each.read() == b""
        assert not reader.at_eof()
        assert not met[0].is_closing()
        writer.transport.abort()
        met[0].abort()  # type: ignore[attr-defined]
    finally:
        server.close()


SHORT = """
import asyncio, logging, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
from gateway.runtime import log
from gateway.http.server.server import HttpServer
log.configure("info", "json", lines_per_second=200)

async def app(scope, receive, send):
    held = [open(os.devnull) for _ in range(8)]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

async def main():
    others = [open(os.devnull) for _ in range(90)]
    async with HttpServer(app, "127.0.0.1", 0) as server:
        print(server.address.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_connections_leave_descriptors_free() -> None:
    """Few are left beside the program's own: silent sockets make way, requests are answered, the log says it once."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(LONG_SECONDS):
            port = int(await program.stdout.readline())
            async with opened(port, 200), httpx.AsyncClient(timeout=LONG_SECONDS) as client:
                for _ in range(5):
                    assert (await client.get(f"http://{HOST}:{port}/", headers={"Connection": "close"})).text == "ok"
    finally:
        program.terminate()
        _, told = await program.communicate()
    assert told.count(b"listener.descriptors_short") == 1
    assert len(told.splitlines()) < 20
