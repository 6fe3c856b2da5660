"""Admission to the embedded broker: a CONNECT is decided before a session is touched.

amqtt replaces the session of a client id first and checks the password afterwards.
"""

import asyncio
import contextlib
import math
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from amqtt.mqtt.connack import (
    IDENTIFIER_REJECTED,
    NOT_AUTHORIZED,
    SERVER_UNAVAILABLE,
    ConnackPacket,
)
from amqtt.mqtt.connect import ConnectPacket

from gateway.broker.access_rules import Action, Role, is_name, loggable, may
from gateway.broker.embedded.codec import MalformedPacketError, UnsupportedProtocolError, read_connect, will_of
from gateway.broker.embedded.password_pace import Refusals
from gateway.broker.embedded.session import ClientConnection, ClientIdentity
from gateway.runtime.paced_log import Paced
from gateway.tls.certificates import ServerCertificate

Authenticate = Callable[[str, str | None, str | None], Awaitable[ClientIdentity | None]]
"""Maps (client id, user name, password) to an identity; None refuses. An exception would refuse too."""

log = structlog.get_logger()

_TOLD_EVERY_SECONDS: Final = 60.0


def _unheard(address: str) -> None:
    del address


async def every_name(_: str) -> bool:
    """Return True: without a registry each user name may be one that it knows."""
    return True


@dataclass(frozen=True)
class Listener:
    """Where the broker listens, how it authenticates a client, and its limits.

    With a ``certificate`` it speaks TLS there, and the gateway's clients use a separate listener.
    """

    host: str
    port: int
    authenticate: Authenticate
    max_packet_bytes: int
    connect_seconds: float
    certificate: ServerCertificate | None = None
    refused: Callable[[str], None] = _unheard
    """Called with the address of each client whose credential is refused."""
    is_known: Callable[[str], Awaitable[bool]] = every_name
    """Returns whether the registry knows a user name. It is called only for addresses that have failed often."""


@dataclass(frozen=True)
class Admitted:
    """A CONNECT that was accepted, and the name of its session."""

    connect: ConnectPacket
    identity: ClientIdentity
    key: str


class _RefusedError(Exception):
    """The CONNECT is refused with this return code [MQTT 3.2.2.3]; ``unread``: its password was not checked."""

    def __init__(self, code: int, *, unread: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.unread = unread


class Admission:
    """Decides on each CONNECT. `has_room_for` returns whether this client can have one more session of that name.

    `spoke` is called for each connection that sent a CONNECT.
    """

    def __init__(
        self,
        listener: Listener,
        prefix: str,
        has_room_for: Callable[[str, ClientIdentity], bool],
        spoke: Callable[[ClientConnection], None],
    ) -> None:
        self._listener = listener
        self._spoke = spoke
        self._prefix = prefix
        self._has_room_for = has_room_for
        self._refusals = Refusals(listener.is_known)
        self._knocking: dict[str, set[ClientConnection]] = {}
        self._tell_full = Paced(lambda count: log.warning("broker.sessions_full", refused_since_last_told=count))
        self._refused_versions = 0
        self._silent_until = -math.inf

    def abort(self, client_id: str) -> None:
        """Close the connections that are being authenticated under that client id."""
        for connection in self._knocking.get(client_id, set()):
            connection.abort()

    async def admit(self, connection: ClientConnection) -> Admitted | None:
        """Admit the client, or return None, before a session of its name is touched."""
        try:
            async with connection.patience(self._listener.connect_seconds):
                connect = await read_connect(connection.reader)
                self._spoke(connection)
                return await self._authenticated(connection, connect)
        except UnsupportedProtocolError as error:
            self._tell_version(error)
            connection.send_bytes(error.answer)
        except _RefusedError as refused:
            if refused.unread or (refused.code == NOT_AUTHORIZED and self._refusals.failed(connection)):
                await self._refusals.delay(connection)
            connection.send(ConnackPacket.build(0, refused.code))
        except MalformedPacketError as error:
            log.info("broker.connect_malformed", reason=str(error))
        except (TimeoutError, EOFError, OSError):
            log.debug("broker.connect_missing")
        return None

    def _tell_version(self, refused: UnsupportedProtocolError) -> None:
        """Log once a minute: a device that speaks another version comes again and again."""
        now = asyncio.get_running_loop().time()
        self._refused_versions += 1
        if now < self._silent_until:
            return
        log.warning(
            "broker.version_refused",
            mqtt=refused.version,
            refused_since_last_told=self._refused_versions,
            message="The embedded broker speaks MQTT 3.1.1 alone. Have the client connect with that, or use Mosquitto "
            "for MQTT 5 ('gateway docs mosquitto').",
        )
        self._refused_versions, self._silent_until = 0, now + _TOLD_EVERY_SECONDS

    async def _authenticated(self, connection: ClientConnection, connect: ConnectPacket) -> Admitted | None:
        client_id = connect.client_id or ""
        if not connection.is_inner and not await self._refusals.admits(connection, connect.username):
            self._listener.refused(connection.address)
            raise _RefusedError(SERVER_UNAVAILABLE, unread=True)
        if connect.username is None or connect.password is None:
            raise _RefusedError(NOT_AUTHORIZED)
        with self._knock(client_id, connection):
            identity = await self._listener.authenticate(client_id, connect.username, connect.password)
        known = identity is not None and is_name(identity.username) and self._may_come_so(identity, connection)
        if identity is None or not known or not self._may_leave(identity, connect):
            self._listener.refused(connection.address)
            log.info(
                "broker.connect_refused",
                client_id=loggable(client_id),
                username=loggable(connect.username),
                client_address=connection.address,
            )
            raise _RefusedError(NOT_AUTHORIZED)
        key = self._session_key(identity, client_id, is_clean=connect.clean_session_flag)
        return Admitted(connect, identity, key) if connection.open else None

    def _session_key(self, identity: ClientIdentity, client_id: str, *, is_clean: bool) -> str:
        """Return the name of its session: a device's own id, or `username/client id`. No other account can get it."""
        if identity.role is Role.DEVICE and client_id != identity.username:
            raise _RefusedError(IDENTIFIER_REJECTED)
        if not client_id and not is_clean:
            raise _RefusedError(IDENTIFIER_REJECTED)  # [MQTT-3.1.3-8]
        given = client_id or secrets.token_hex(12)
        key = given if given == identity.username else f"{identity.username}/{given}"
        if not self._has_room_for(key, identity):
            self._tell_full()
            raise _RefusedError(SERVER_UNAVAILABLE)
        return key

    def _may_come_so(self, identity: ClientIdentity, connection: ClientConnection) -> bool:
        """Return whether a device has used TLS where it must, and its own certificate where devices have one."""
        if identity.token_id is None:
            return True
        if connection.is_inner:
            return False
        certificate = self._listener.certificate
        return certificate is None or not certificate.asks_clients or connection.peer_name == identity.username

    def _may_leave(self, identity: ClientIdentity, connect: ConnectPacket) -> bool:
        will = will_of(connect)
        return will is None or may(identity.role, identity.username, Action.WILL, will.topic, prefix=self._prefix)

    @contextlib.contextmanager
    def _knock(self, client_id: str, connection: ClientConnection) -> Iterator[None]:
        self._knocking.setdefault(client_id, set()).add(connection)
        try:
            yield
        finally:
            self._knocking[client_id].discard(connection)
            if not self._knocking[client_id]:
                del self._knocking[client_id]
