"""What the embedded broker keeps of a client: who it is, its socket, and the messages on their way to it."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from amqtt.mqtt.publish import PublishPacket
from amqtt.session import OutgoingApplicationMessage, Session

from gateway.broker.access import Role
from gateway.broker.embedded_pressure import Pressure
from gateway.broker.embedded_wire import Packet, Will, read_packet
from gateway.certificates import common_name

log = structlog.get_logger()

_LINGER_SECONDS: Final = 1.0
_UNREAD_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Identity:
    """Who connected, and with which token: its row in the registry, of an integrator when its password was made.

    None for accounts without one.
    """

    role: Role
    username: str
    token_id: int | None


@dataclass(frozen=True)
class Limits:
    """What the embedded broker holds at most, so that no client can fill the memory of the gateway."""

    connections: int = 1_200
    """Sockets, those that have not said who they are among them; more are closed at once."""
    sessions: int = 10_000
    """Clients whose state is kept, connected or not."""
    subscriptions: int = 100
    """Filters of one client; the gateway has no limit."""
    retained: int = 50_000
    """Retained messages."""
    queued: int = 100
    """QoS 1 messages that wait for one client that is away; the oldest goes first."""
    queued_gateway: int = 100_000
    """The same for the gateway, to which the whole fleet talks."""
    queued_bytes: int = 32 << 20
    """Payload that waits for one client, connected or not."""
    inflight: int = 20
    """QoS 1 messages sent to one client and not acknowledged yet."""
    inflight_gateway: int = 1_000
    """The same for the gateway, which acknowledges after its commit: the size of its batches."""
    unheard: int = 1_000
    """QoS 1 messages of one client that wait for the gateway; one that has sent more is not read meanwhile."""


class Connection:
    """One socket. Once `open` is False nothing that still comes from it counts."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_inner: bool = False) -> None:
        self.open = True
        self.is_inner = is_inner
        """Whether it came by the gateway's own door, which has no TLS."""
        self._reader = reader
        self._writer = writer
        self._deadline: asyncio.Timeout | None = None
        if sock := writer.get_extra_info("socket"):  # so that a dead client without a keepalive is noticed at last
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def peer_name(self) -> str | None:
        """The common name of the certificate that the client showed, if it did."""
        return common_name(self._writer.get_extra_info("peercert"))

    @property
    def reader(self) -> asyncio.StreamReader:
        """Where its packets come from."""
        return self._reader

    async def read(self, max_bytes: int) -> Packet:
        """The next packet, once the client has taken enough of what was sent to it (so a deaf one is not fed)."""
        if not self._writer.is_closing():
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
        return await read_packet(self._reader, max_bytes)

    def send(self, packet: Any) -> None:
        """Send a packet of amqtt's; never waits."""
        if self.open and not self._writer.is_closing():
            self._writer.write(packet.to_bytes())

    def is_deaf(self) -> bool:
        """Whether so much waits in its socket that a QoS 0 message is better dropped."""
        return self._writer.transport.get_write_buffer_size() > _UNREAD_BYTES

    @contextlib.asynccontextmanager
    async def patience(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise TimeoutError out of what is done inside when it takes longer, or when the connection is aborted."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        finally:
            self._deadline = None

    def abort(self) -> None:
        """Close it now, whatever is on its way in or out."""
        self.open = False
        self._writer.transport.abort()
        if self._deadline:
            self._deadline.reschedule(0)

    async def close(self) -> None:
        """Close it after what was sent has left, waiting a second for that at most."""
        self.open = False
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._writer.wait_closed()
        self._writer.transport.abort()


class Waiting(OutgoingApplicationMessage):  # type: ignore[misc]  # amqtt ships no types
    """A QoS 1 message on its way to a client; ``sender`` is who waits for the gateway to take it, if anybody."""

    __slots__ = ("sender",)

    def __init__(self, topic: str, payload: bytes, qos: int, *, retain: bool, sender: str | None) -> None:
        super().__init__(None, topic, qos, payload, retain)
        self.sender = sender


class Backlog:
    """QoS 1 messages that wait for a client, first in first out, within limits: the oldest gives way."""

    def __init__(self, max_bytes: int) -> None:
        self._messages: deque[Waiting] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._messages)

    def append(self, message: Waiting, max_messages: int | None) -> list[Waiting]:
        """Put one in; returns those that were dropped for it."""
        self._messages.append(message)
        self._bytes += len(message.data)
        dropped = []
        while self._bytes > self._max_bytes or (max_messages is not None and len(self._messages) > max_messages):
            dropped.append(self.popleft())
        return dropped

    def popleft(self) -> Waiting:
        """Take the oldest out."""
        message = self._messages.popleft()
        self._bytes -= len(message.data)
        return message


class ClientSession(Session):  # type: ignore[misc]  # amqtt ships no types
    """amqtt's session, with its own way out for messages.

    amqtt gives up on a QoS 1 message after five seconds, or when the connection ends. Here it stays in flight until it
    is acknowledged, is sent again when the client is back [MQTT-4.4.0-1], and those behind it wait in the backlog.
    """

    def __init__(self, client_id: str, identity: Identity, limits: Limits, pressure: Pressure) -> None:
        super().__init__()
        is_gateway = identity.role is Role.GATEWAY
        self.client_id = client_id
        self.identity = identity
        self.will: Will | None = None
        self.connection: Connection | None = None
        self.filters: set[str] = set()
        self.incoming: set[int] = set()
        self.was_denied = False
        self._backlog = Backlog(limits.queued_bytes)
        self._queued = limits.queued_gateway if is_gateway else limits.queued
        self._window = limits.inflight_gateway if is_gateway else limits.inflight
        self._overflowed = False
        self._pressure = pressure if is_gateway else None

    def deliver(self, topic: str, payload: bytes, qos: int, *, retain: bool, sender: str | None = None) -> None:
        """Send a message now, or as soon as the client can take it; at QoS 0 now or never."""
        if qos:
            self._queue(Waiting(topic, payload, qos, retain=retain, sender=sender if self._pressure else None))
            self._pump()
        elif self.connection and not self.connection.is_deaf():
            self.connection.send(PublishPacket.build(topic, payload, None, dup_flag=False, qos=0, retain=retain))

    def acknowledged(self, packet_id: int) -> None:
        """The client has this message; an id that is not in flight means nothing."""
        message = self.inflight_out.pop(packet_id, None)
        if message:
            self._relieve([message])
        self._pump()

    def drop_all(self) -> None:
        """Nothing of what waits for the client will reach it."""
        self._relieve([*self.inflight_out.values(), *self._backlog])

    def resume(self) -> None:
        """The client is back: what it never acknowledged goes out again, then what has come since."""
        if self.connection:
            for message in self.inflight_out.values():
                self.connection.send(message.build_publish_packet(dup=True))
        self._pump()

    def _queue(self, message: Waiting) -> None:
        if self._pressure and message.sender:
            self._pressure.put(message.sender)
        dropped = self._backlog.append(message, None if self.connection else self._queued)
        if dropped and not self._overflowed:
            log.warning("broker.queue_full", client_id=self.client_id, queued=len(self._backlog))
        self._overflowed = bool(dropped)
        self._relieve(dropped)

    def _relieve(self, messages: Iterable[Waiting]) -> None:
        for message in messages:
            if self._pressure and message.sender:
                self._pressure.taken(message.sender)

    def _pump(self) -> None:
        while self.connection and len(self._backlog) and len(self.inflight_out) < self._window:
            message = self._backlog.popleft()
            message.packet_id = self.next_packet_id
            self.inflight_out[message.packet_id] = message
            self.connection.send(message.build_publish_packet())
