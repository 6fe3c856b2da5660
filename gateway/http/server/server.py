"""HTTP server: runs an ASGI application with uvicorn, inside the running loop and on a socket of our own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import structlog
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.addresses import Address
from gateway.errors import UnavailableError
from gateway.http.server.connection import HttpConnection
from gateway.http.server.connection_limit import RESERVE, ConnectionLimiter, ConnectionLimits
from gateway.http.server.listener import Listener, most_descriptors
from gateway.tls.certificates import ServerCertificate

log = structlog.get_logger()

GRACE_SECONDS: Final = 2.0
IDLE_SECONDS: Final = 30
PLACES: Final = ConnectionLimits(2_000)
_BACKLOG: Final = 1024
_CUT_SECONDS: Final = 0.2


class HttpServer:
    """Serves ``app`` on ``host``, port ``port`` (0: one that the kernel picks) for as long as its block runs.

    With a ``certificate`` it is HTTPS. Leaving the block lets running requests finish, for at most ``grace_seconds``;
    idle connections are closed at once. ``stopping`` is called first, to end streams. ``setting`` names the setting
    of the address. Beyond ``limits`` connections (or half the process's descriptors), the longest idle one is evicted.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        certificate: ServerCertificate | None = None,
        grace_seconds: float = GRACE_SECONDS,
        limits: ConnectionLimits = PLACES,
        stopping: Callable[[], None] = lambda: None,
        setting: str = "http",
    ) -> None:
        self._app = app
        self._setting = setting
        self._wanted = Address(host, port)
        self._certificate = certificate
        self._grace_seconds = grace_seconds
        self._room = ConnectionLimiter(_within_descriptors(limits))
        self._stopping = stopping

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            UnavailableError: that address cannot be listened on.
        """
        self._socket = _listen(self._wanted, self._setting)
        self.address = Address(*self._socket.getsockname()[:2])
        self._server = _Server(_config(_until_cut(self._app), self._certificate, self._room))
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
        """Return the URL for clients on this machine."""
        loopback = "::1" if ":" in self.address.host else "127.0.0.1"
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://{Address(loopback, self.address.port) if self.address.is_wildcard else self.address}"


def _until_cut(app: ASGIApp) -> ASGIApp:
    """Return the application, which ends quietly when :meth:`_Server.cut` cancels it. uvicorn would log a failure."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return served


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


def _within_descriptors(limits: ConnectionLimits) -> ConnectionLimits:
    descriptors = most_descriptors()
    return limits if descriptors is None else replace(limits, total=min(limits.total, descriptors // 2))


def _config(app: ASGIApp, certificate: ServerCertificate | None, room: ConnectionLimiter) -> uvicorn.Config:
    config = _Config(
        app,
        http=HttpConnection,
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
    config.room, config.reserve = room, ConnectionLimiter(ConnectionLimits(RESERVE))
    config.hsts_seconds = 0 if certificate is None else certificate.hsts_seconds
    config.load()
    config.ssl = None if certificate is None else certificate.context  # uvicorn would make one, and never renew it
    return config


class _Config(uvicorn.Config):
    room: ConnectionLimiter
    reserve: ConnectionLimiter
    hsts_seconds: int


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with a bounded stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: signals belong to the owner of the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and notify."""
        assert isinstance(self.config, _Config)
        assert sockets is not None
        listener = Listener(sockets, self._protocol, tls=self.config.ssl, make_way=self.config.room.make_way)
        self.servers = [listener]  # type: ignore[list-item]  # all that is asked of one
        await listener.start_serving()
        self.started = True
        self.up.set()

    def _protocol(self) -> HttpConnection:
        return HttpConnection(self.config, self.server_state, self.lifespan.state)

    async def cut(self) -> None:
        """End what still runs: first the connections, then requests that do not end even so."""
        state = self.server_state
        log.warning("http.requests_cut", requests=len(state.tasks), connections=len(state.connections))
        self.force_exit = True
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_CUT_SECONDS)
        for task in list(state.tasks):
            task.cancel()
