"""Connections of the embedded broker: a subclass of amqtt's Broker that is safe for devices to reach.

docs/embedded-broker.md lists the defects of amqtt and where each one is mended.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from amqtt.broker import Server
from amqtt.mqtt.connack import CONNECTION_ACCEPTED, ConnackPacket
from amqtt.mqtt.packet import DISCONNECT

from gateway.broker.access_rules import Role
from gateway.broker.embedded.admission import Admission, Admitted, Listener
from gateway.broker.embedded.codec import LenientReader, MalformedPacketError, Packet, will_of
from gateway.broker.embedded.packets import handle
from gateway.broker.embedded.routing import RoutingBroker
from gateway.broker.embedded.session import BrokerLimits, ClientConnection, ClientIdentity, ClientSession
from gateway.broker.embedded.unknown_clients import UnknownClients
from gateway.http.server.listener import Listener as Doorstep
from gateway.http.server.listener import bound
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

_LISTENER: Final = "default"
_INNER: Final = "inner"
_LOOPBACK: Final = "127.0.0.1"
_KEEPALIVE_GRACE: Final = 1.5
_ACCEPT_QUEUE: Final = 1_024
_TURN: Final = 32
_STOP_SECONDS: Final = 2.0
_Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class GuardedBroker(RoutingBroker):
    """amqtt's broker behind admission: a client touches no table before it is authenticated and authorised."""

    def __init__(self, listener: Listener, prefix: str, limits: BrokerLimits) -> None:
        super().__init__(prefix, limits)
        self._listener = listener
        self._strangers = UnknownClients(limits.strangers)
        self._admission = Admission(listener, prefix, self._has_room_for, self._strangers.leave)
        self._connections: dict[ClientConnection, asyncio.Task[None]] = {}
        self._most_sockets = limits.connections + limits.strangers + limits.asking
        self._tell_full = Paced(lambda count: log.warning("broker.connections_full", closed_since_last_told=count))

    @property
    def port(self) -> int:
        """Return the port that it listens on, once it has been started."""
        return self._port_of(_LISTENER)

    @property
    def inner_port(self) -> int | None:
        """Return the port on loopback for the gateway itself, or None when it uses the common one."""
        return self._port_of(_INNER) if _INNER in self._servers else None

    def _port_of(self, listener: str) -> int:
        return int(self._servers[listener].instance.sockets[0].getsockname()[1])

    def live_sessions(self) -> dict[str, ClientIdentity]:
        """Return the identities of connected clients by session name."""
        return {key: session.identity for key, (session, _) in self._sessions.items() if session.connection}

    def kept_sessions(self) -> dict[str, ClientIdentity]:
        """Return the identities of all kept sessions, connected or not."""
        return {key: session.identity for key, (session, _) in self._sessions.items()}

    def cut(self, key: str) -> bool:
        """End the session of that name and every socket that uses it. Return whether it was connected.

        Its will is not published: a revoked client says nothing more. Acknowledgements for what it said before still
        reach it, if the gateway commits within half a second. What it sends meanwhile is ignored. A CONNECT that is
        being authenticated is ended too, since the result may be out of date.
        """
        self._admission.abort(key)
        session, _ = self._sessions.get(key, (None, None))
        if session is None:
            return False
        connection = session.connection
        if connection is not None:
            self._end(session, with_will=False)
            connection.part()
        self.forget(session)
        return connection is not None

    async def stop(self) -> None:
        """Close the listener and all connections, without wills, and let amqtt stop; bounded in time."""
        for server in self._servers.values():
            server.instance.close()
        for connection in self._connections:
            connection.abort()
        if tasks := list(self._connections.values()):
            _, stuck = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            for task in stuck:
                task.cancel()
        self._sessions.clear()
        await self._stop_amqtt()

    async def _stop_amqtt(self) -> None:
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.shutdown()
        except TimeoutError:
            log.warning("broker.stop_timed_out", seconds=_STOP_SECONDS)

    async def open(self) -> None:
        """Bind and serve.

        Raises:
            OSError: it cannot listen there.
        """
        certificate = self._listener.certificate
        context = None if certificate is None else certificate.context
        await self._bind(_LISTENER, self._accepted, self._listener.host, self._listener.port, context)
        if context is not None:
            await self._bind(_INNER, self._accepted_inside, _LOOPBACK, 0, None)
        await self.start()

    async def _bind(self, name: str, accepted: _Accepted, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(LenientReader(loop=loop), accepted, loop=loop)

        sockets = await asyncio.to_thread(bound, host, port, backlog=_ACCEPT_QUEUE)
        patience = self._listener.connect_seconds
        server = Doorstep(sockets, protocol, tls=tls, handshake_seconds=patience, make_way=self._strangers.make_way)
        self._servers[name] = Server(name, server)

    async def _start_listeners(self) -> None:
        """Start listening. amqtt's `start` calls this; its own version would hide why it cannot listen."""
        for server in self._servers.values():
            await server.instance.start_serving()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._welcome(ClientConnection(reader, writer))

    async def _accepted_inside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._welcome(ClientConnection(reader, writer, is_inner=True))

    async def _welcome(self, connection: ClientConnection) -> None:
        task = asyncio.current_task()
        if len(self._connections) >= self._most_sockets or task is None:
            self._tell_full()
            connection.abort()
            return
        self._connections[connection] = task
        self._strangers.enter(connection)
        try:
            await self._live(connection)
        finally:
            self._strangers.leave(connection)
            try:
                await connection.close()
            finally:
                del self._connections[connection]

    async def _live(self, connection: ClientConnection) -> None:
        admitted = await self._admission.admit(connection)
        if admitted is None:
            return
        session = self._attach(connection, admitted)
        is_clean = False
        try:
            is_clean = await self._serve(connection, session, admitted.connect.keep_alive)
        except TimeoutError:
            log.info("broker.keepalive_missed", client_id=session.client_id)
        except MalformedPacketError as error:
            log.info("broker.packet_malformed", client_id=session.client_id, reason=str(error))
        except (EOFError, OSError):
            log.debug("broker.connection_lost", client_id=session.client_id)
        finally:
            if session.connection is connection:
                self._end(session, with_will=not is_clean)

    def _has_room_for(self, key: str, identity: ClientIdentity) -> bool:
        """Return whether the client can connect: it has a session, is the gateway, or is within the limits."""
        session, _ = self._sessions.get(key, (None, None))
        if identity.role is Role.GATEWAY or (session is not None and session.connection is not None):
            return True
        return self._has_place_for(identity) and (session is not None or self._can_keep(identity))

    def _has_place_for(self, identity: ClientIdentity) -> bool:
        live = [session.identity.role for session, _ in self._sessions.values() if session.connection is not None]
        others = sum(role not in (Role.DEVICE, Role.GATEWAY) for role in live)
        if identity.role is not Role.DEVICE and others >= self.limits.connections_others:
            return False
        return len(live) - live.count(Role.GATEWAY) < self.limits.connections

    def _can_keep(self, identity: ClientIdentity) -> bool:
        """Return whether there is room for a new session, if need be in place of the account's oldest away session."""
        if identity.role is not Role.DEVICE:
            own = [each for each, _ in self._sessions.values() if each.identity.username == identity.username]
            if len(own) >= self.limits.sessions_of_account:
                away = next((each for each in own if each.connection is None), None)
                if away is None:
                    return False
                self.forget(away)
        return len(self._sessions) < self.limits.sessions

    def _attach(self, connection: ClientConnection, admitted: Admitted) -> ClientSession:
        """Take the session over from an older connection, or begin one, and send the CONNACK [MQTT 3.1.4]."""
        session, is_resumed = self._session_for(admitted)
        connect = admitted.connect
        session.identity = admitted.identity
        session.clean_session = connect.clean_session_flag
        session.keep_alive = connect.keep_alive
        session.will = will_of(connect)
        session.was_denied = False
        session.connection = connection
        session.transitions.connect()
        self._sessions[admitted.key] = (session, connection)
        connection.send(ConnackPacket.build(int(is_resumed), CONNECTION_ACCEPTED))
        session.resume()
        return session

    def _session_for(self, admitted: Admitted) -> tuple[ClientSession, bool]:
        session, _ = self._sessions.get(admitted.key, (None, None))
        if session and self._supersede(session):
            log.info("broker.session_taken_over", client_id=admitted.key)
        if session and (session.clean_session or admitted.connect.clean_session_flag):
            self.forget(session)
            session = None
        if session:
            return session, True
        return ClientSession(admitted.key, admitted.identity, self.limits, self._pressure), False

    async def _serve(self, connection: ClientConnection, session: ClientSession, keep_alive: int) -> bool:
        """Handle packets one after the other. Return True at a DISCONNECT.

        Raises:
            TimeoutError: the keepalive ran out [MQTT-3.1.2-24].
        """
        silence = keep_alive * _KEEPALIVE_GRACE or None
        count = 0
        while connection.open:
            if self._pressure.is_high(session.client_id):
                await self._hold(connection, session)
                continue
            async with asyncio.timeout(silence):
                packet = await connection.read(self._listener.max_packet_bytes)
            if packet.kind == DISCONNECT:
                return _is_whole(packet)
            await self._turn(connection, session, packet)
            count += 1
            if count % _TURN == 0:
                await asyncio.sleep(0)  # a client with a full buffer must not delay the others
        return False

    async def _hold(self, connection: ClientConnection, session: ClientSession) -> None:
        """Do not read a client until the gateway has handled what it sent, or the connection is aborted."""
        with contextlib.suppress(TimeoutError):
            async with connection.patience(None):
                await self._pressure.falls(session.client_id)

    async def _turn(self, connection: ClientConnection, session: ClientSession, packet: Packet) -> None:
        if connection.open:
            await handle(self, connection, session, packet)

    def _supersede(self, session: ClientSession) -> bool:
        """Close the connection that a session has, if any, without waiting for the client [MQTT-3.1.4-2]."""
        connection = session.connection
        if connection is None:
            return False
        connection.abort()
        self._end(session, with_will=True)
        return True

    def _end(self, session: ClientSession, *, with_will: bool) -> None:
        """Detach a session from its connection. A clean session ends with it [MQTT 3.1.2.4]."""
        connection, session.connection = session.connection, None
        if connection is None:
            return
        session.transitions.disconnect()
        session.incoming.difference_update(connection.debts.unconfirmed())
        will, session.will = session.will, None
        if session.clean_session:
            self.forget(session)
        if with_will and will:
            self.publish_will(session, will)


def _is_whole(packet: Packet) -> bool:
    return not packet.flags and not packet.body
