"""Request heads that two readers could read in two ways, over a raw socket: refused, and the connection closed."""

import asyncio
import contextlib
import json

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gateway.http.server.server import HttpServer
from tests.http.support import Api

LONG_SECONDS = 60
HOST = b"Host: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"3\r\nabc\r\n0\r\n\r\n"
UPGRADE = b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
SECURE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with method, path, host and body."""
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    host = dict(scope["headers"]).get(b"host", b"-")
    said = b" ".join([scope["method"].encode(), scope["path"].encode(), host, content])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


async def said_to(server: HttpServer, *parts: bytes) -> bytes:
    """All that is answered to these bytes until the server closes; each part is sent when it is the next one's turn."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""
    finally:
        writer.transport.abort()


def post(headers: bytes, version: bytes = b"1.1", content: bytes = BODY) -> bytes:
    """A POST with these headers beside its host."""
    return b"POST /a HTTP/%s\r\n%s%s\r\n%s" % (version, HOST, headers, content)


def get(headers: bytes, target: bytes = b"/a", version: bytes = b"1.1") -> bytes:
    """A GET with these headers alone."""
    return b"GET %s HTTP/%s\r\n%s\r\n" % (target, version, headers)


REFUSED = {
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked in two headers": post(CHUNKED + CHUNKED),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "identity and a length": post(b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n", content=b"abc"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n"),
    "gzip and chunked in two headers": post(b"Transfer-Encoding: gzip\r\n" + CHUNKED),
    "a parameter": post(b"Transfer-Encoding: chunked;q=1\r\n"),
    "empty": post(b"Transfer-Encoding: \r\n"),
    "chunked in HTTP/1.0": post(CHUNKED, b"1.0"),
    "chunked and a length": post(CHUNKED + b"Content-Length: 3\r\n"),
    "a length and chunked": post(b"Content-Length: 3\r\n" + CHUNKED),
    "two lengths": post(b"Content-Length: 3\r\nContent-Length: 3\r\n", content=b"abc"),
    "no host": get(b""),
    "two hosts": get(b"Host: a\r\nHost: a\r\n"),
    "two hosts in HTTP/1.0": get(b"Host: a\r\nHost: b\r\n", version=b"1.0"),
    "an empty host": get(b"Host:\r\n"),
    "a host with a blank": get(b"Host: a b\r\n"),
    "a host with a user": get(b"Host: a@b\r\n"),
    "a host with a path": get(b"Host: a/b\r\n"),
    "two hosts in one": get(b"Host: a, b\r\n"),
    "no port": get(b"Host: a:x\r\n"),
    "a user in an absolute URL": get(HOST, b"http://u:p@evil/a"),
    "an empty host in an absolute URL": get(HOST, b"http:///a"),
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/2.0": get(HOST, version=b"2.0"),
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\n%s\r\n" % HOST,
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED.keys())
async def test_an_ambiguous_head_is_refused_and_the_connection_closed(said: bytes) -> None:
    """One answer, 400 in the words of the API with the headers of every answer; what comes behind is not served."""
    behind = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with asyncio.timeout(LONG_SECONDS), HttpServer(echo, "127.0.0.1", 0) as server:
        answer = await said_to(server, said + behind)
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content)["error"]["code"] == "invalid_request"
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert SECURE.items() <= headers.items()
    assert headers["connection"] == "close"


SERVED = {
    "chunked in capitals": (post(b"Transfer-Encoding: Chunked\r\nConnection: close\r\n"), b"POST /a x abc"),
    "HTTP/1.0 without a host": (get(b"", version=b"1.0"), b"GET /a - "),
    "IPv6": (get(b"Host: [::1]:8080\r\nConnection: close\r\n"), b"GET /a [::1]:8080 "),
    "blanks around the host": (get(b"Host:\tx \r\nConnection: close\r\n"), b"GET /a x  "),
    "an absolute URL goes before Host": (
        get(b"Host: a\r\nConnection: close\r\n", b"http://other:80/a"),
        b"GET /a other:80 ",
    ),
}


@pytest.mark.parametrize(("said", "expected"), SERVED.values(), ids=SERVED.keys())
async def test_an_unambiguous_head_is_served(said: bytes, expected: bytes) -> None:
    """HTTP/1.0 needs no host; an absolute URL is the host that counts."""
    async with asyncio.timeout(LONG_SECONDS), HttpServer(echo, "127.0.0.1", 0) as server:
        answer = await said_to(server, said)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(expected)


@pytest.mark.parametrize("length", [b"Content-Length: 28\r\n", CHUNKED])
async def test_the_body_behind_an_upgrade_is_a_body(length: bytes) -> None:
    """A Java client asks for h2c with each first request. Its body is neither lost nor the next request."""
    inner = b"GET /smuggled HTTP/1.1\r\nH: x"
    assert len(inner) == 28
    content = b"1c\r\n%s\r\n0\r\n\r\n" % inner if length is CHUNKED else inner
    last = get(b"Host: y\r\nConnection: close\r\n", b"/next")
    async with asyncio.timeout(LONG_SECONDS), HttpServer(echo, "127.0.0.1", 0) as server:
        together = await said_to(server, post(UPGRADE + length, content=content) + last)
        apart = await said_to(server, post(UPGRADE + length, content=b""), content, last)
    for answer in (together, apart):
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b"POST /a x " + inner in answer
        assert answer.endswith(b"GET /next y ")


PATHS = (
    "/v1/devices/a%2Fb",
    "/v1/devices/a%2fb",
    "/v1/devices/a%5Cb",
    "/v1/devices/a\\b",
    "/v1/devices/a%00",
    "/v1/devices/a%0d%0a",
    "/v1/devices/a%7F",
    "/v1/devices/../devices",
    "/v1/devices/%2e%2E/devices",
    "/v1/./devices",
    "/v1/devices/%2e",
    "/v1/devices/a%zz",
    "/v1/devices/a%",
    "/v1/devices/a%ff",
    "/v1/devices/%c0%af",
    "/docs/..%2fhealth",
)


async def test_an_ambiguous_path_is_refused(api: Api) -> None:
    """400 for every caller, and for the gateway's pages too; other escapes are decoded."""
    url = httpx.URL(api.url)
    for path in PATHS:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            get(b"Connection: close\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % api.key.encode(), path.encode())
        )
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 400 "), path
        assert json.loads(content)["error"]["details"] == {"field": "path"}
        assert b"\r\nx-request-id: " in head
    assert (await api.as_(api.key).get("/v1/%64evices")).status_code == 200
    assert (await api.as_(api.key).get("/v1/devices/...")).status_code == 404


async def test_every_api_answer_is_same_origin(api: Api) -> None:
    """Good answers, errors and the document."""
    client = api.as_(None)
    for path in ("/health", "/openapi.json", "/v1/devices", "/nowhere"):
        assert SECURE.items() <= dict((await client.get(path)).headers).items(), path
    assert "strict-transport-security" not in (await client.get("/health")).headers
    assert SECURE.items() <= dict((await api.back_end.get("/v1/devices")).headers).items()
