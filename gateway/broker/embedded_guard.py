"""The subclass of amqtt's Broker that makes it fit to be reached by devices: how a connection lives and ends.

docs/embedded-broker.md lists the defects of amqtt as it comes and where each one is cured.
"""

import asyncio
from typing import Final

import structlog
from amqtt.broker import Server
from amqtt.mqtt.connack import CONNECTION_ACCEPTED, ConnackPacket
from amqtt.mqtt.packet import DISCONNECT

from gateway.broker.embedded_admission import Admission, Admitted, Listener
from gateway.broker.embedded_packets import handle
from gateway.broker.embedded_routing import RoutingBroker
from gateway.broker.embedded_session import ClientSession, Connection, Identity, Limits
from gateway.broker.embedded_wire import LenientReader, MalformedPacketError, Packet, will_of

log = structlog.get_logger()

_LISTENER: Final = "default"
_KEEPALIVE_GRACE: Final = 1.5
_ACCEPT_QUEUE: Final = 1_024
_TURN: Final = 32
_STOP_SECONDS: Final = 2.0


class GuardedBroker(RoutingBroker):
    """amqtt's broker behind a door: nothing reaches its tables before the client is known and allowed to."""

    def __init__(self, listener: Listener, prefix: str, limits: Limits) -> None:
        super().__init__(prefix, limits)
        self._listener = listener
        self._admission = Admission(listener, prefix, self._has_room_for)
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    @property
    def port(self) -> int:
        """The port it listens on; there once it has been started."""
        return int(self._servers[_LISTENER].instance.sockets[0].getsockname()[1])

    def live_sessions(self) -> dict[str, Identity]:
        """Who is connected, by session name."""
        return {key: session.identity for key, (session, _) in self._sessions.items() if session.connection}

    def cut(self, key: str) -> bool:
        """End the session of that name and every socket that speaks for it; returns whether it was connected.

        A CONNECT that is just being authenticated is ended too: what it is about to be told may be out of date.
        """
        self._admission.abort(key)
        session, _ = self._sessions.get(key, (None, None))
        if session is None:
            return False
        was_live = self._supersede(session)
        self.forget(session)
        return was_live

    async def stop(self) -> None:
        """Close the listener and all connections, without wills, and let amqtt wind up; bounded in time."""
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
        """Bind and serve. Raises OSError when it cannot listen there."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(LenientReader(loop=loop), self._accepted, loop=loop)

        where = self._listener.host, self._listener.port
        server = await loop.create_server(protocol, *where, backlog=_ACCEPT_QUEUE, start_serving=False)
        self._servers[_LISTENER] = Server(_LISTENER, server)
        await self.start()

    async def _start_listeners(self) -> None:
        """Called by amqtt's `start`, which would hide why it could not listen."""
        await self._servers[_LISTENER].instance.start_serving()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        task = asyncio.current_task()
        if len(self._connections) >= self._limits.connections or task is None:
            log.warning("broker.connections_full", connections=len(self._connections))
            connection.abort()
            return
        self._connections[connection] = task
        try:
            await self._live(connection)
        finally:
            del self._connections[connection]
            await connection.close()

    async def _live(self, connection: Connection) -> None:
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

    def _has_room_for(self, key: str) -> bool:
        return key in self._sessions or len(self._sessions) < self._limits.sessions

    def _attach(self, connection: Connection, admitted: Admitted) -> ClientSession:
        """Take the session over from an older connection, or begin one, and say so to the client [MQTT 3.1.4]."""
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
        return ClientSession(admitted.key, admitted.identity, self._limits), False

    async def _serve(self, connection: Connection, session: ClientSession, keep_alive: int) -> bool:
        """Handle packets one after the other; returns True at a DISCONNECT. Raises TimeoutError [MQTT-3.1.2-24]."""
        silence = keep_alive * _KEEPALIVE_GRACE or None
        count = 0
        while connection.open:
            async with asyncio.timeout(silence):
                packet = await connection.read(self._listener.max_packet_bytes)
            if packet.kind == DISCONNECT:
                return _is_whole(packet)
            await self._turn(connection, session, packet)
            count += 1
            if count % _TURN == 0:
                await asyncio.sleep(0)  # a client with a full buffer must not keep the others waiting
        return False

    async def _turn(self, connection: Connection, session: ClientSession, packet: Packet) -> None:
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
        """Part a session from its connection. A clean session ends with it [MQTT 3.1.2.4]."""
        connection, session.connection = session.connection, None
        if connection is None:
            return
        session.transitions.disconnect()
        will, session.will = session.will, None
        if session.clean_session:
            self.forget(session)
        if with_will and will:
            self.publish_will(session, will)


def _is_whole(packet: Packet) -> bool:
    return not packet.flags and not packet.body
