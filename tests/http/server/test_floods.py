"""Floods of connections, on loopback: clients that do not read, or ask for too much, harm no other client."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.http.server import connection as module
from gateway.http.server.connection_limit import ConnectionLimits
from gateway.http.server.server import HttpServer
from gateway.tls.certificates import Files, ServerCertificate
from tests.support.certificates import HOST, make_authority, server_pair, trusting_context
from tests.support.wait import eventually

LONG_SECONDS = 60
PLACES = 10
LARGE = b"x" * (8 << 20)
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers `/large` with more than a socket holds, `/held` when it is told to, everything else with `ok`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = 0

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.begun += 1
        if scope["path"] == "/held":
            await self.go_on.wait()
        content = LARGE if scope["path"] == "/large" else b"ok"
        length = str(len(content)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def serving(*, per_address: int = 0) -> AsyncIterator[tuple[HttpServer, App]]:
    """A server with few places."""
    app = App()
    server = HttpServer(app, "127.0.0.1", 0, limits=ConnectionLimits(PLACES, per_address), grace_seconds=0.1)
    async with asyncio.timeout(LONG_SECONDS), server:
        yield server, app


@contextmanager
def attacking(server: HttpServer, number: int, said: bytes, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """So many connections that say this and read nothing."""
    with contextlib.ExitStack() as stack:
        sockets, at = [], (server.address.host, server.address.port)
        for _ in range(number):
            each = stack.enter_context(socket.create_connection(at, source_address=(source, 0)))
            each.sendall(said)
            each.settimeout(0)
            sockets.append(each)
        yield sockets


async def status(server: HttpServer, path: str, source: str = "127.0.0.1") -> int:
    """What a request on a connection of its own is answered; 0: nothing."""
    address = server.address
    reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=(source, 0))
    writer.write(GET % path.encode())
    try:
        return int((await reader.readline()).split()[1])
    except (ConnectionError, IndexError):
        return 0
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def has_ended(sock: socket.socket) -> bool:
    """Whether the server has closed it; what it sent before is read."""
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


async def test_a_client_that_does_not_read_is_evicted() -> None:
    """More unread connections than there are places, each with requests in a pipeline: all others are served."""
    async with serving() as (server, app):
        with attacking(server, PLACES + 2, GET % b"/large" * 5):
            await eventually(lambda: app.begun >= PLACES, "the attack is at work")
            assert [await status(server, path) for path in ["/health", "/v1/devices"] * 10] == [200] * 20


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, although no client needs the place; a slow reader gets the whole response."""
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.5)
    async with serving() as (server, _):
        with attacking(server, 2, GET % b"/large") as (unread, slow):
            read = 0
            while read < len(LARGE):
                with contextlib.suppress(BlockingIOError):
                    read += len(slow.recv(1 << 18))
                await asyncio.sleep(0.05)
            await eventually(lambda: has_ended(unread), "it is cut off")


async def test_a_pipeline_is_bounded() -> None:
    """Of requests sent without reading an answer few are begun, and what follows stays in the sockets."""
    sent = GET % b"/large" * 3_000
    async with serving() as (server, app):
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(sent)
        assert await status(server, "/health") == 200
        assert sum(isinstance(each, RequestResponseCycle) for each in gc.get_objects()) < 100
        assert app.begun < 5
        writer.transport.abort()
        del reader


async def test_a_pipeline_is_answered_to_its_end() -> None:
    """A client that sends thousands of requests at once and reads gets every answer."""
    number = 3_000
    async with serving() as (server, app):
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(GET % b"/small" * (number - 1) + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).count(b"\r\n\r\nok") == number == app.begun
        writer.close()
        await writer.wait_closed()


async def test_health_checks_have_reserved_connections() -> None:
    """All places are at work: /health is answered also beside silent connections, the rest hears 503."""
    async with serving() as (server, app):
        with attacking(server, PLACES, GET % b"/held"):
            await eventually(lambda: app.begun == PLACES, "all places are taken")
            with attacking(server, 40, b""):
                paths = ["/health", "/ready?x", "/v1/devices"] * 3
                assert [await status(server, path) for path in paths] == [200, 200, 503] * 3
            app.go_on.set()
        assert await status(server, "/v1/devices") == 200


async def test_an_address_has_a_bounded_share() -> None:
    """What one address holds at work leaves places to another."""
    async with serving(per_address=PLACES // 2) as (server, app):
        with attacking(server, PLACES, GET % b"/held", source="127.0.0.2"):
            await eventually(lambda: app.begun == PLACES // 2, "its share is at work")
            assert await status(server, "/v1/devices", "127.0.0.2") == 503
            assert await status(server, "/v1/devices", "127.0.0.3") == 200


async def test_a_tls_client_that_does_not_read_is_evicted(tmp_path: Path) -> None:
    """HTTPS, where the buffers are others: the same."""
    pair = server_pair(authority := make_authority(tmp_path))
    certificate = ServerCertificate("http", Files(pair.certificate, pair.key))
    app, context = App(), trusting_context(authority)
    server = HttpServer(app, HOST, 0, certificate=certificate, limits=ConnectionLimits(PLACES), grace_seconds=0.1)
    async with asyncio.timeout(LONG_SECONDS), server, contextlib.AsyncExitStack() as stack:
        for _ in range(PLACES + 2):
            reader, writer = await asyncio.open_connection(HOST, server.address.port, ssl=context, limit=1)
            stack.callback(writer.transport.abort)
            stack.callback(writer.close)
            assert not reader.at_eof()
            writer.write(GET % b"/large" * 5)
        await eventually(lambda: app.begun >= PLACES, "the attack is at work")
        for _ in range(10):
            async with httpx.AsyncClient(verify=context) as client:
                assert (await client.get(f"{server.url}/v1/devices")).text == "ok"
