"""Listener: accepts connections, counts those before the handshake, and reserves descriptors for the gateway.

asyncio's own server holds 300 KB for a minute for each silent socket. Without free descriptors it tries on, with a line
in the log each time. Here a socket costs its descriptor alone until its first bytes arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from gateway.core.addresses import site_of
from gateway.http.server.connection_limit import ConnectionLimiter, ConnectionLimits
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

HANDSHAKE_SECONDS: Final = 5.0
MOST_BEFORE_HANDSHAKE: Final = 512
RESERVED_DESCRIPTORS: Final = 128
"""Descriptors that no connection takes: for the registry, its backups, the broker, outgoing calls."""
_GOODBYE_SECONDS: Final = 5.0
_ACCEPTS_AT_ONCE: Final = 32
_PAUSE_SECONDS: Final = 0.5


def most_descriptors() -> int | None:
    """Return how many this process may have open, or None without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def bound(host: str, port: int, *, backlog: int) -> list[socket.socket]:
    """Return sockets that listen at all addresses of this host.

    Raises:
        OSError: none of them can be listened on, or one is in use.
    """
    with contextlib.ExitStack() as stack:
        sockets, reason = [], None
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, name in dict.fromkeys(found):
            try:
                sockets.append(stack.enter_context(_listening(family, kind, protocol, name, backlog)))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                reason = error
        if reason is not None and not sockets:
            raise reason
        stack.pop_all()
        return sockets


def _listening(family: int, kind: int, protocol: int, name: Any, backlog: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"cannot listen on {name[0]}, port {name[1]}: {reason}") from error
    return sock


class Listener:
    """Accepts on listening ``sockets`` and makes a protocol with ``factory`` for each; with ``tls`` over TLS.

    ``make_way`` ends an idle connection when descriptors are short, and returns whether there was one. This takes the
    place of asyncio's own server.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        tls: ssl.SSLContext | None = None,
        make_way: Callable[[], bool] = lambda: False,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        most_before_handshake: int = MOST_BEFORE_HANDSHAKE,
    ) -> None:
        self.sockets = tuple(sockets)
        self._make_way = make_way
        self._arrivals = _Arrivals(factory, tls, handshake_seconds, most_before_handshake)
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._open = False
        self._tell_short = Paced(lambda count: log.warning("listener.descriptors_short", since_last_told=count))

    async def start_serving(self) -> None:
        """Start accepting."""
        if not self._open:
            self._open = True
            self._watch()

    def close(self) -> None:
        """Stop accepting, and close connections before their handshake."""
        self._open = False
        if self._pause is not None:
            self._pause.cancel()
        for listening in self.sockets:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening)
            listening.close()
        self._arrivals.close()

    async def wait_closed(self) -> None:
        """Do nothing: nothing is left to wait for."""

    def _watch(self) -> None:
        for listening in self.sockets:
            listening.settimeout(0)
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor, or no memory: clients wait in the backlog
                self._tell_short()
                self._rest()
                return
            if not self._is_short(sock):
                self._arrivals.take(sock, address)
            elif self._arrivals.make_way() or self._make_way():
                self._loop.call_soon(self._take_freed, sock, address)  # after the evicted one has closed
                return
            else:
                sock.close()
                self._rest()
                return

    def _take_freed(self, sock: socket.socket, address: Any) -> None:
        """Give it the number that became free; else the reserve would be used up bit by bit."""
        with contextlib.suppress(OSError), sock:
            freed = sock.dup()
            if self._open and not self._is_short(freed):
                self._arrivals.take(freed, address)
            else:
                freed.close()

    def _is_short(self, sock: socket.socket) -> bool:
        """Return whether few are left: the kernel assigns the lowest free number."""
        most = most_descriptors()
        if most is None or sock.fileno() < most - min(RESERVED_DESCRIPTORS, most // 4):
            return False
        self._tell_short()
        return True

    def _rest(self) -> None:
        for listening in self.sockets:
            self._loop.remove_reader(listening)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if self._open:
            self._watch()


class _Arrivals:
    """Accepted sockets that are no connections yet."""

    def __init__(
        self, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None, seconds: float, most: int
    ) -> None:
        self.factory = factory
        self.tls = tls
        self.seconds = seconds
        self.room = ConnectionLimiter(ConnectionLimits(most), event="listener.handshakes_full")
        self.arriving: set[_Arrival] = set()

    def take(self, sock: socket.socket, address: Any) -> None:
        arrival = _Arrival(self, sock)
        if self.tls is None:
            arrival.connect()
            return
        site = site_of(address[0])
        self.room.enter(arrival, site)
        self.room.mark_idle(arrival)
        arrival.expect_first_bytes()

    async def connected(self, sock: socket.socket) -> None:
        """Make a connection of it."""
        limits = {"ssl_handshake_timeout": self.seconds, "ssl_shutdown_timeout": _GOODBYE_SECONDS} if self.tls else {}
        await asyncio.get_running_loop().connect_accepted_socket(self.factory, sock, ssl=self.tls, **limits)

    def make_way(self) -> bool:
        return self.room.make_way()

    def close(self) -> None:
        for arrival in list(self.arriving):
            arrival.give_way()


class _Arrival:
    """One of them. It waits a bounded time for the first bytes, and with TLS for the handshake."""

    def __init__(self, arrivals: _Arrivals, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._all = arrivals
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        arrivals.arriving.add(self)

    def expect_first_bytes(self) -> None:
        self._deadline = self._loop.call_later(self._all.seconds, self.give_way)
        self._loop.add_reader(self._socket, self._speaks)

    def connect(self) -> None:
        self._task = asyncio.create_task(self._connect(), name="arrival")

    def give_way(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._over()

    def _speaks(self) -> None:
        try:
            gone = not self._socket.recv(1, socket.MSG_PEEK)
        except OSError as error:
            if isinstance(error, BlockingIOError | InterruptedError):
                return
            gone = True
        if gone:
            self.give_way()
            return
        self._loop.remove_reader(self._socket)
        self.connect()

    async def _connect(self) -> None:
        try:
            # A handshake that failed, or was evicted, is the client's affair. Nothing may keep the error: it holds all
            # memory of the TLS connection until the garbage is collected.
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await self._all.connected(self._socket)
        finally:
            self._task = None
            self._over()

    def _over(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._all.arriving.discard(self)
        self._all.room.leave(self)
