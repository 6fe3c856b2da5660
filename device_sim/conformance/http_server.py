"""HTTP/1.1 for the few calls of a device and its companion app: one request per connection, JSON bodies."""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

LARGEST_BODY = 64 * 1024
_LARGEST_HEAD = 16 * 1024
_REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """One request. Names of headers are in small letters; `body` is the JSON, None without or with a wrong one."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any = None

    @property
    def bearer(self) -> str:
        """Return the token of the Authorization header."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(frozen=True)
class Response:
    """An answer with a JSON body."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response | None]


def error(status: int, code: str, message: str, **headers: str) -> Response:
    """Return an error in the format of the gateway. `_` in the name of a header stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"error": {"code": code, "message": message, "details": {}}}, named)


class HttpServer:
    """Server that answers each request by `handle`. When `handle` returns None it closes without an answer."""

    def __init__(self, handle: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._handle = handle
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address is in use, or is not one of this machine.
        """
        self._server = await asyncio.start_server(self._open, host, port, ssl=self._tls, limit=_LARGEST_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                response = self._answer(await _read(reader))
                if response is not None:
                    writer.write(_bytes_of(response))
                    await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # the client went away in the middle, or sends nothing: there is no one to answer
        finally:
            writer.close()

    def _answer(self, request: Request | None) -> Response | None:
        if request is None:
            return error(HTTPStatus.BAD_REQUEST, "invalid_request", "this is not a request with a Content-Length")
        return self._handle(request)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Return the request, or None when it has another form than a device needs."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ")
    pairs = [line.partition(":") for line in head[1:] if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if (
        len(words) != len(("method", "path", "version"))
        or not (length.isascii() and length.isdigit())
        or int(length) > LARGEST_BODY
    ):
        return None
    if "transfer-encoding" in headers:
        return None
    content = await reader.readexactly(int(length))
    return Request(words[0], words[1], headers, _json(content))


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _bytes_of(response: Response) -> bytes:
    body = json.dumps(response.body).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **response.headers,
    }
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
