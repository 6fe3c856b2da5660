"""Serves an ASGI application with uvicorn, inside the loop that runs already and on a socket of our own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway import model
from gateway.addresses import Address
from gateway.certificates import ServerCertificate
from gateway.errors import UnavailableError
from gateway.http.auth import PEER
from gateway.http.room import Room
from gateway.http.streaming import ABORT

log = structlog.get_logger()

GRACE_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 30
HEAD_SECONDS: Final = 60.0
MAX_HEAD_BYTES: Final = 32_768
MAX_BODY_OVERHEAD: Final = 65_536
"""Bytes of chunk sizes, chunk extensions and trailers that one request may have; a body in pieces of 16 bytes fits."""
OVERHEAD_PER_BODY_BYTE: Final = 1
MOST_CONNECTIONS: Final = 2_000
_BACKLOG: Final = 1024
_CUT_SECONDS: Final = 0.2
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
"""What a client may still send of a request that was answered before it was complete: then it can read the answer."""


class HttpServer:
    """Serves ``app`` on ``host``, port ``port`` (0: one that the kernel picks) for as long as its block runs.

    With a ``certificate`` it is HTTPS. Leaving the block lets requests that are being worked on finish, for
    ``grace_seconds`` at most; connections that only wait for another request are closed at once. ``stopping`` is called
    first, for answers without an end of their own. ``setting`` is the one that says where it listens. Of more than
    ``most_connections`` the one goes that has been waiting longest without a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        certificate: ServerCertificate | None = None,
        grace_seconds: float = GRACE_SECONDS,
        most_connections: int = MOST_CONNECTIONS,
        stopping: Callable[[], None] = lambda: None,
        setting: str = "http",
    ) -> None:
        self._app = app
        self._setting = setting
        self._wanted = Address(host, port)
        self._certificate = certificate
        self._grace_seconds = grace_seconds
        self._most_connections = most_connections
        self._stopping = stopping

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            UnavailableError: that address cannot be listened on.
        """
        self._socket = _listen(self._wanted, self._setting)
        self.address = Address(*self._socket.getsockname()[:2])
        self._server = _Server(_config(self._app, self._certificate, self._most_connections))
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="http")
        await self._server.up.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping()
        self._server.should_exit = True
        done, _ = await asyncio.wait([self._task], timeout=self._grace_seconds)
        if not done:
            await self._server.cut()
        await self._task

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        loopback = "::1" if ":" in self.address.host else "127.0.0.1"
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://{Address(loopback, self.address.port) if self.address.is_wildcard else self.address}"


def _listen(address: Address, setting: str) -> socket.socket:
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(address, setting, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(address, setting, error) from error
    return listener


def _cannot_listen(address: Address, setting: str, error: OSError) -> UnavailableError:
    return UnavailableError(
        f"HTTP cannot listen on {address} ({error.strerror}). Stop what does, or choose another with "
        f"--{setting.replace('_', '-')} HOST:PORT."
    )


def _config(app: ASGIApp, certificate: ServerCertificate | None, most_connections: int) -> uvicorn.Config:
    config = _Config(
        app,
        http=_Protocol,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
    )
    config.room = Room(most_connections)
    config.load()
    config.ssl = None if certificate is None else certificate.context  # uvicorn would make one, and never renew it
    return config


class _Config(uvicorn.Config):
    room: Room


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with an end that nobody can put off."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the business of whoever owns the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        self.up.set()

    async def cut(self) -> None:
        """Give up on what still runs: first on the clients, then on requests that even so do not end."""
        state = self.server_state
        log.warning("http.requests_cut", requests=len(state.tasks), connections=len(state.connections))
        self.force_exit = True
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_CUT_SECONDS)
        for task in list(state.tasks):
            task.cancel()


class _HeadTooLargeError(Exception):
    """Raised into the parser, which stops and has the request refused."""


class _Protocol(HttpToolsProtocol):
    """uvicorn's connection with what it lacks: limits on a request's head, on its framing and on the time it may take.

    A request that was answered before it was complete ends the connection: what still comes of it is thrown away.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._unfinished = 0  # bytes of a head that is not complete yet
        self._in_head = True
        self._in_request = False
        self._body_bytes = 0
        self._bytes_after_head = 0
        self._lingering_bytes: int | None = None  # None: the connection goes on
        self._refused_with = _NOT_HTTP

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its first request has to come."""
        super().connection_made(transport)
        self._room: Room = self.config.room  # type: ignore[attr-defined]  # `_config` made it
        self._expect_head()
        if not self._room.enter(self):
            self._refuse(_FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._unset_deadline()
        self._room.leave(self)
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close a connection that only waits, for one that has come."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a head, of a body, or of both."""
        if self._lingering_bytes is not None:
            self._linger(len(data))
            return
        if self._in_request:
            self._bytes_after_head += len(data)
        super().data_received(data)
        if self._has_too_much_framing() and not self.transport.is_closing():
            self._refuse(_FRAMING_TOO_LARGE)
        self._unfinished = self._unfinished + len(data) if self._in_head else 0
        if self._unfinished > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._body_bytes = self._bytes_after_head = 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[PEER] = self.transport.get_extra_info("peercert")  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._in_head = False
        self._unset_deadline()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refused_with = _HEAD_TOO_LARGE
            raise _HeadTooLargeError
        self._in_request = True
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; one behind the body is a trailer, which nobody asks for and which is not kept."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._in_request = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has been answered; the next may come, in time."""
        # The newest request is the answered one: those before it in a pipeline were complete when it began.
        if self._in_request and self.cycle.response_complete:
            self._end_after_answer()
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._expect_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words are for its log
        """What could not be parsed is refused in the words of the API."""
        self._refuse(self._refused_with)

    def _has_too_much_framing(self) -> bool:
        overhead = self._bytes_after_head - self._body_bytes
        return self._in_request and overhead > MAX_BODY_OVERHEAD + OVERHEAD_PER_BODY_BYTE * self._body_bytes

    def _end_after_answer(self) -> None:
        """Say that no more answers come, and take what the client has on its way, so that it reads the answer."""
        self._lingering_bytes = 0
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _linger(self, count: int) -> None:
        assert self._lingering_bytes is not None
        self._lingering_bytes += count
        if self._lingering_bytes > _LINGER_BYTES:
            self.transport.abort()

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _expect_head(self) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)
        self._room.waits(self)

    def _unset_deadline(self) -> None:
        self._room.works(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _refusal(status: str, message: str, code: str = "invalid_request") -> bytes:
    body = model.ErrorAnswer(error=model.ErrorBody(code=code, message=message, details={}))
    content = body.model_dump_json().encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + content


_FULL: Final = _refusal(
    "503 Service Unavailable",
    "The gateway has as many connections as it takes, and all are at work. Send the request again in a moment.",
    "service_unavailable",
)
_NOT_HTTP: Final = _refusal("400 Bad Request", "This cannot be read as an HTTP/1.1 request. Check the client.")
_FRAMING_TOO_LARGE: Final = _refusal(
    "400 Bad Request", "Chunk sizes, chunk extensions and trailers outweigh the body. Send the body in larger chunks."
)
_HEAD_TOO_LARGE: Final = _refusal(
    "431 Request Header Fields Too Large",
    f"Path and headers are too large. Send at most {MAX_HEAD_BYTES} bytes of them.",
)
