"""The embedded broker: amqtt inside the gateway's process, for trials and small fleets (docs/embedded-broker.md).

async with EmbeddedBroker(authenticate=authenticate) as broker:
    ...connect to broker.host, broker.port...
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import structlog

from gateway.broker.embedded.admission import Authenticate, Listener, every_name
from gateway.broker.embedded.connections import GuardedBroker
from gateway.broker.embedded.session import BrokerLimits, ClientIdentity
from gateway.tls.certificates import ServerCertificate

__all__ = ["Authenticate", "BrokerLimits", "ClientIdentity", "EmbeddedBroker"]

log = structlog.get_logger()

DEFAULT_LIMITS: Final = BrokerLimits()
_NOISY: Final = ("amqtt", "transitions")


class EmbeddedBroker:
    """An MQTT 3.1.1 broker that runs as long as the block. Its state is in memory and ends with it.

    `host` is where it listens (loopback by default), `port` 0 picks a free one. `authenticate` is called at each
    CONNECT with user name and password; anonymous clients are refused before. `is_known` returns whether a user name
    exists; it is called while an address sends many wrong passwords. With a `certificate` all clients but the gateway
    must use TLS. `prefix` stands before every topic of the contract. A packet above `max_packet_bytes`, and a socket
    that has not sent a CONNECT within `connect_timeout` seconds, are closed. Entering raises OSError when it cannot
    listen there.
    """

    def __init__(  # noqa: PLR0913 - each is passed by name
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        authenticate: Authenticate,
        is_known: Callable[[str], Awaitable[bool]] = every_name,
        prefix: str = "",
        certificate: ServerCertificate | None = None,
        max_packet_bytes: int = 131_072,
        connect_timeout: float = 3.0,
        limits: BrokerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._listener = Listener(
            host, port, authenticate, max_packet_bytes, connect_timeout, certificate, is_known=is_known
        )
        self._prefix = prefix
        self._limits = limits
        self._broker: GuardedBroker | None = None

    def on_refused(self, refused: Callable[[str], None]) -> None:
        """Call this with the address of each client whose credential is refused, from the next start on."""
        self._listener = replace(self._listener, refused=refused)

    async def __aenter__(self) -> Self:
        _tame_loggers()
        broker = GuardedBroker(self._listener, self._prefix, self._limits)
        await broker.open()
        self._broker = broker
        log.info("broker.started", host=self.host, port=self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        broker, self._broker = self._running, None
        await broker.stop()
        log.info("broker.stopped")

    @property
    def host(self) -> str:
        """Return the host that it listens on."""
        return self._listener.host

    @property
    def port(self) -> int:
        """Return the port that it listens on: the one that was picked, when 0 was given."""
        return self._running.port

    @property
    def inner_port(self) -> int | None:
        """Return the port on loopback for the gateway itself without TLS, or None when there is no TLS."""
        return self._running.inner_port

    def sessions(self) -> dict[str, ClientIdentity]:
        """Return the identities of connected clients by session name.

        The name is the client id where that is the user name (every device, and a gateway that connects so), and
        `username/client id` otherwise. So no account can take over the session of another one.
        """
        return self._running.live_sessions()

    def kept_sessions(self) -> dict[str, ClientIdentity]:
        """Return the identities of all kept sessions, connected or not."""
        return self._running.kept_sessions()

    async def cut(self, client_id: str) -> bool:
        """Close that session and every socket of it at once. Return whether it was connected.

        Its will is not published. Its subscriptions and queued messages are dropped, also when it was away. Nothing
        reaches the client any more unless it is admitted again.
        """
        was_live = self._running.cut(client_id)
        log.info("broker.session_cut", client_id=client_id, was_live=was_live)
        return was_live

    @property
    def _running(self) -> GuardedBroker:
        if self._broker is None:
            raise RuntimeError("the embedded broker is not running: enter it with `async with`")
        return self._broker


def _tame_loggers() -> None:
    """Set amqtt's loggers to warnings, unless a level was set for it by name: at debug level it logs every packet."""
    for name in _NOISY:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
