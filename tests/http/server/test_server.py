"""The server on the wire: where it listens, what it does with what is no request, and how it ends."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gateway.errors import UnavailableError
from gateway.http import body
from gateway.http.server import connection as module
from gateway.http.server.head_refusals import MAX_HEAD_BYTES
from gateway.http.server.server import HttpServer
from tests.http.support import Api

LONG_SECONDS = 60


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The smallest application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def connected(server: HttpServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    try:
        async with asyncio.timeout(LONG_SECONDS):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answers(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes."""
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])  # noqa: S104 - that is to be tested
async def test_port_0_is_chosen_by_the_kernel(host: str) -> None:
    """And ``url`` says which, in a form that works on this machine."""
    async with HttpServer(hello, host, 0) as server, httpx.AsyncClient() as client:
        assert server.address.port > 0
        assert (await client.get(server.url)).text == "hello"


async def test_an_address_in_use_is_an_error() -> None:
    """``UnavailableError`` names it and the option; the one that listens goes on."""
    async with HttpServer(hello, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        with pytest.raises(UnavailableError, match=rf"cannot listen on {server.address} .*--http"):
            await HttpServer(hello, "127.0.0.1", server.address.port).__aenter__()
        assert (await client.get(server.url)).text == "hello"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_foreign_address_is_an_error(host: str) -> None:
    """The same error, whether it resolves or not."""
    with pytest.raises(UnavailableError, match="cannot listen"):
        await HttpServer(hello, host, 0).__aenter__()


async def test_the_port_can_be_reused_at_once() -> None:
    """A restart does not wait for connections in TIME_WAIT."""
    async with HttpServer(hello, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        await client.get(server.url)
        port = server.address.port
    async with HttpServer(hello, "127.0.0.1", port) as server:
        assert server.address.port == port


async def test_an_idle_connection_does_not_delay_the_stop() -> None:
    """Keep-alive connections, and those that never sent anything, are closed at once: not after the grace time."""
    server = HttpServer(hello, "127.0.0.1", 0, grace_seconds=10 * LONG_SECONDS)
    async with asyncio.timeout(LONG_SECONDS):
        async with server:
            client = httpx.AsyncClient()
            await client.get(server.url)
            silent = await asyncio.open_connection(server.address.host, server.address.port)
            await asyncio.sleep(0)
        await client.aclose()
        assert await silent[0].read() == b""
        silent[1].close()
        await silent[1].wait_closed()


async def test_a_running_request_is_finished_before_the_stop() -> None:
    """Its answer goes out although the server has been told to stop."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await hello(scope, receive, send)

    client = httpx.AsyncClient(timeout=LONG_SECONDS)
    async with HttpServer(slow, "127.0.0.1", 0, grace_seconds=LONG_SECONDS) as server:
        request = asyncio.create_task(client.get(server.url))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.2, go_on.set)
    assert (await request).text == "hello"
    await client.aclose()


@pytest.mark.parametrize("waits_for", ["nothing", "a body"])
async def test_an_endless_request_is_cut_at_the_stop(waits_for: str, caplog: pytest.LogCaptureFixture) -> None:
    """After the grace time the end comes all the same, and it is no failure of the program."""
    begun = asyncio.Event()

    async def endless(_scope: Scope, receive: Receive, _send: Send) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        if waits_for == "nothing":
            await asyncio.Event().wait()

    async with asyncio.timeout(LONG_SECONDS):
        async with HttpServer(endless, "127.0.0.1", 0, grace_seconds=0.3) as server:
            reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
            await begun.wait()
        assert await answers(reader) in (b"", b"")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06device",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nA\0B: x\r\n\r\n",
    ],
)
async def test_malformed_requests_are_refused(api: Api, nonsense: bytes) -> None:
    """It is refused or dropped; the next client is served."""
    host, port = httpx.URL(api.url).host, httpx.URL(api.url).port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(nonsense)
    writer.write_eof()
    async with asyncio.timeout(LONG_SECONDS):
        answer = await answers(reader)
    assert b" 500 " not in answer
    if answer:
        head, _, content = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(content)["error"]["code"] == "invalid_request"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert (await api.as_(None).get("/health")).status_code == 200


@pytest.mark.parametrize("complete", [True, False])
async def test_a_too_large_head_is_refused(*, complete: bool) -> None:
    """431 with the contract's error, whether it is complete or never ends."""
    async with HttpServer(hello, "127.0.0.1", 0) as server, connected(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: ")
        for _ in range(10):
            writer.write(b"x" * (MAX_HEAD_BYTES // 10 - 10))
            await writer.drain()
        writer.write(b"x" * 200 + (b"\r\n\r\n" if complete else b""))
        head, _, content = (await answers(reader)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert json.loads(content)["error"]["code"] == "invalid_request"


async def test_a_head_of_exactly_the_limit_is_served() -> None:
    """And many small requests on one connection do not add up."""
    async with HttpServer(hello, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        for _ in range(5):
            assert (await client.get(server.url, headers={"X-Large": "x" * (MAX_HEAD_BYTES - 1_000)})).text == "hello"


async def test_an_endless_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, or half a request, is closed after a while; after a good request too."""
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)
    async with HttpServer(hello, "127.0.0.1", 0) as server:
        for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"):
            async with connected(server) as (reader, writer):
                writer.write(said)
                answer = await answers(reader)
                assert (b"hello" in answer) == (b"\r\n\r\n" in said)


async def test_an_endless_body_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 that says so, after a while."""
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    address = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = f"POST /v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nContent-Length: 9\r\n\r\n"
    writer.write(head.encode() + b"half")
    async with asyncio.timeout(LONG_SECONDS):
        assert b"HTTP/1.1 400 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


TRAILER = b"X-Trailer: " + b"x" * 1_000 + b"\r\n"
CHUNKED = b"POST /v1/devices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def flood(writer: asyncio.StreamWriter, piece: bytes, *, most: int) -> int:
    """Send a piece again and again until the server hangs up; the bytes that it took, or `most`."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    return sent


@pytest.mark.parametrize("piece", [TRAILER * 60, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"])
async def test_bytes_after_the_last_answer_are_discarded(api: Api, piece: bytes) -> None:
    """Trailers or chunk extensions without an end, behind a 401: the answer can be read, and the connection ends."""
    most = 64 << 20
    address = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(CHUNKED + (b"0\r\n" if piece.startswith(b"X") else b""))
    async with asyncio.timeout(LONG_SECONDS):
        assert b"HTTP/1.1 401 " in await reader.readuntil(b"\r\n\r\n")
        assert await flood(writer, piece, most=most) < most
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    assert (await api.as_(None).get("/health")).status_code == 200


@pytest.mark.parametrize("piece", [TRAILER * 60, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"])
async def test_framing_that_outweighs_the_body_is_refused(api: Api, piece: bytes) -> None:
    """With a good credential, while the body is awaited: 400 in the words of the API, and the connection ends."""
    address = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = f"Authorization: Bearer {api.key}\r\nContent-Type: application/json\r\n\r\n".encode()
    writer.write(CHUNKED.removesuffix(b"\r\n") + head + (b"0\r\n" if piece.startswith(b"X") else b""))
    async with asyncio.timeout(LONG_SECONDS):
        sent = await flood(writer, piece, most=8 << 20)
        assert sent < 8 << 20
        with contextlib.suppress(ConnectionError):
            assert b"outweigh the body" in await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_small_trailers_are_ignored(api: Api) -> None:
    """A chunked body with an extension and a trailer is a body; the connection goes on."""
    address = httpx.URL(api.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    content = b'{"serial_number":"BP-1"}'
    head = f"Authorization: Bearer {api.key}\r\nContent-Type: application/json\r\n\r\n".encode()
    for _ in range(2):
        writer.write(CHUNKED.removesuffix(b"\r\n") + head)
        writer.write(f"{len(content):x};last=1\r\n".encode() + content + b"\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        async with asyncio.timeout(LONG_SECONDS):
            answered = await reader.readuntil(b"\r\n\r\n")
            assert answered.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 200 "))
            length = int(re.search(rb"content-length: (\d+)", answered)[1])  # type: ignore[index]
            assert json.loads(await reader.readexactly(length))["serial_number"] == "BP-1"
    writer.close()
    await writer.wait_closed()


async def test_requests_in_a_pipeline_are_answered_in_order(api: Api) -> None:
    """Three at once, the last one closes."""
    host, port = httpx.URL(api.url).host, httpx.URL(api.url).port
    reader, writer = await asyncio.open_connection(host, port)
    paths = ("/health", "/nowhere", "/v1/devices")
    for number, path in enumerate(paths):
        last = b"Connection: close\r\n" if number == len(paths) - 1 else b""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode() + last + b"\r\n")
    async with asyncio.timeout(LONG_SECONDS):
        answer = await answers(reader)
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"401"]
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_during_its_body_is_closed(api: Api) -> None:
    """No answer is sent, nothing is changed, and the next client is served."""
    before = api.dump()
    host, port = httpx.URL(api.url).host, httpx.URL(api.url).port
    for _ in range(5):
        _, writer = await asyncio.open_connection(host, port)
        head = f"POST /v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
        writer.write(
            head.encode() + b'Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"serial_number":"BP'
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await api.back_end.get("/v1/devices")).json()["data"] == []
    assert api.dump() == before


async def test_an_upgrade_is_ignored(api: Api) -> None:
    """A WebSocket or HTTP/2 upgrade gets the answer to the plain request."""
    for protocol in ("websocket", "h2c"):
        headers = {
            "Connection": "Upgrade",
            "Upgrade": protocol,
            "Sec-WebSocket-Key": "x",
            "Sec-WebSocket-Version": "13",
        }
        assert (await api.as_(None).get("/health", headers=headers)).status_code == 200
