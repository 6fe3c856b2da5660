"""State of the embedded broker per client: its identity, its socket, and the messages on their way to it."""

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

from gateway.broker.access_rules import Role
from gateway.broker.embedded.backpressure import Pressure
from gateway.broker.embedded.codec import Packet, Will, read_packet
from gateway.broker.embedded.receipts import Debts, Receipt
from gateway.tls.certificates import common_name

log = structlog.get_logger()

_LINGER_SECONDS: Final = 1.0
_DUE_SECONDS: Final = 0.5
"""How long an end waits for the gateway to commit what the client said, so that the client gets its PUBACK."""
_UNREAD_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class ClientIdentity:
    """The account that connected, and its credential: a device's token row, or when an integrator's password was made.

    None for accounts without one. ``project_id`` is the project whose devices an integrator reads.
    """

    role: Role
    username: str
    token_id: int | None
    project_id: str | None = None


@dataclass(frozen=True)
class BrokerLimits:
    """Limits of the embedded broker, so that no client can fill the memory of the gateway."""

    connections: int = 1_200
    """Connected clients, without the gateway. A CONNECT beyond is refused."""
    connections_others: int = 200
    """Those of them that are no devices."""
    strangers: int = 1_024
    """Sockets that have not sent a CONNECT. Beyond, the oldest of the address with most of them is closed."""
    asking: int = 1_000
    """Sockets of clients that are being authenticated or closed. More are closed at once."""
    sessions_of_account: int = 100
    """Sessions kept of one account that is no device. Beyond, the oldest whose client is away is dropped."""
    sessions: int = 10_000
    """Clients whose state is kept, connected or not."""
    subscriptions: int = 100
    """Filters of one client. The gateway has no limit."""
    topic_bytes: int = 1_024
    """Bytes of a topic or a filter in UTF-8. The longest of this contract has about 620, behind the longest prefix."""
    topic_levels: int = 32
    """Levels of a topic or a filter. The deepest of this contract, behind the deepest prefix, has 13."""
    retained: int = 50_000
    """Retained messages."""
    queued: int = 100
    """QoS 1 messages queued for one client that is away. The oldest is dropped first."""
    queued_gateway: int = 100_000
    """The same for the gateway, which receives from the whole fleet."""
    queued_bytes: int = 32 << 20
    """Bytes of payloads and topics queued for one client, connected or not."""
    inflight: int = 20
    """QoS 1 messages sent to one client and not acknowledged yet."""
    inflight_gateway: int = 1_000
    """The same for the gateway, which acknowledges after its commit: the size of its batches."""
    unheard: int = 1_000
    """QoS 1 messages of one client that wait for the gateway. A client with more is not read meanwhile."""

    def take_topic(self, topic: str) -> bool:
        """Return whether a topic or a filter is within the limits."""
        is_short = len(topic) <= self.topic_bytes // 4 or len(topic.encode()) <= self.topic_bytes
        return is_short and topic.count("/") < self.topic_levels


class ClientConnection:
    """One socket. Once `open` is False, what still arrives on it is ignored."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_inner: bool = False) -> None:
        self.open = True
        self.is_inner = is_inner
        """Whether it came through the gateway's own listener, which has no TLS."""
        self.debts = Debts(self._write, self.abort)
        self._reader = reader
        self._writer = writer
        self._deadline: asyncio.Timeout | None = None
        self._is_over = asyncio.Event()
        if sock := writer.get_extra_info("socket"):  # detects a dead client that has no keepalive
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @property
    def peer_name(self) -> str | None:
        """Return the common name of the client's certificate, or None."""
        return common_name(self._writer.get_extra_info("peercert"))

    @property
    def address(self) -> str:
        """Return the client's address."""
        peer = self._writer.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def reader(self) -> asyncio.StreamReader:
        """Return the stream of its packets."""
        return self._reader

    async def read(self, max_bytes: int) -> Packet:
        """Return the next packet, once the client has read enough of what was sent to it."""
        if not self._writer.is_closing():
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
        return await read_packet(self._reader, max_bytes)

    def send(self, packet: Any) -> None:
        """Send a packet of amqtt's. This never waits."""
        self.send_bytes(packet.to_bytes())

    def send_bytes(self, data: bytes) -> None:
        """Send a packet that amqtt does not know."""
        if self.open:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def is_deaf(self) -> bool:
        """Return whether the socket holds so much unread data that a QoS 0 message is dropped."""
        return self._writer.transport.get_write_buffer_size() > _UNREAD_BYTES

    @contextlib.asynccontextmanager
    async def patience(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise TimeoutError in the block when it takes longer, or when the connection is aborted."""
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                yield
        finally:
            self._deadline = None

    def abort(self) -> None:
        """Close it now, whatever is on its way in or out."""
        self.open = False
        self._is_over.set()
        self._writer.transport.abort()
        if self._deadline and not self._deadline.expired():  # an expired one cannot be moved
            self._deadline.reschedule(0)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the connection is aborted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()

    def part(self) -> None:
        """Ignore what still arrives; abort once the gateway has handled, or dropped, what came before."""
        self.open = False
        if not self.debts:
            self.abort()
            return
        timer = asyncio.get_running_loop().call_later(_DUE_SECONDS, self.abort)

        def paid() -> None:
            timer.cancel()
            self.abort()

        self.debts.on_paid = paid

    async def close(self) -> None:
        """Close it after what is due and what was sent has left, waiting a bounded time for either."""
        self.open = False
        await self._paid()
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    async def _paid(self) -> None:
        if not self.debts or self._writer.is_closing():
            return
        self.debts.on_paid = self._is_over.set
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DUE_SECONDS):
                await self._is_over.wait()


class Waiting(OutgoingApplicationMessage):  # type: ignore[misc]  # amqtt ships no types
    """A QoS 1 message on its way to a client.

    On its way to the gateway it carries its sender, and the ``receipt`` that the sender gets after the commit.
    """

    __slots__ = ("receipt", "sender", "size")

    def __init__(
        self, topic: str, payload: bytes, qos: int, *, retain: bool, sender: str | None, receipt: Receipt | None
    ) -> None:
        super().__init__(None, topic, qos, payload, retain)
        self.size = len(topic) + len(payload)
        self.sender = sender
        self.receipt = receipt


class Backlog:
    """Queue of QoS 1 messages for a client, first in first out, within limits: the oldest is dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._messages: deque[Waiting] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._messages)

    def append(self, message: Waiting, max_messages: int | None) -> list[Waiting]:
        """Append one; return those that were dropped for it."""
        self._messages.append(message)
        self._bytes += message.size
        dropped = []
        while self._bytes > self._max_bytes or (max_messages is not None and len(self._messages) > max_messages):
            dropped.append(self.popleft())
        return dropped

    def popleft(self) -> Waiting:
        """Remove and return the oldest."""
        message = self._messages.popleft()
        self._bytes -= message.size
        return message


class ClientSession(Session):  # type: ignore[misc]  # amqtt ships no types
    """amqtt's session, with its own delivery.

    amqtt gives up on a QoS 1 message after five seconds, or when the connection ends. Here it stays in flight until it
    is acknowledged, and is sent again when the client is back [MQTT-4.4.0-1]. Those behind it wait in the backlog.
    """

    def __init__(self, client_id: str, identity: ClientIdentity, limits: BrokerLimits, pressure: Pressure) -> None:
        super().__init__()
        is_gateway = identity.role is Role.GATEWAY
        self.client_id = client_id
        self.identity = identity
        self.will: Will | None = None
        self.connection: ClientConnection | None = None
        self.filters: set[str] = set()
        self.incoming: set[int] = set()
        self.was_denied = False
        self._backlog = Backlog(limits.queued_bytes)
        self._queued = limits.queued_gateway if is_gateway else limits.queued
        self._window = limits.inflight_gateway if is_gateway else limits.inflight
        self._overflowed = False
        self._pressure = pressure if is_gateway else None

    @property
    def is_gateway(self) -> bool:
        """Return whether it is the gateway's own session."""
        return self._pressure is not None

    def deliver(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool,
        sender: str | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        """Send a message now, or as soon as the client can take it; at QoS 0 now or never.

        ``sender`` and ``receipt`` matter where the client is the gateway.
        """
        if qos:
            if self._pressure is None:
                sender = receipt = None
            self._queue(Waiting(topic, payload, qos, retain=retain, sender=sender, receipt=receipt))
            self._pump()
        elif self.connection and not self.connection.is_deaf():
            self.connection.send(PublishPacket.build(topic, payload, None, dup_flag=False, qos=0, retain=retain))

    def acknowledged(self, packet_id: int) -> None:
        """Note that the client has this message. An id that is not in flight is ignored."""
        message = self.inflight_out.pop(packet_id, None)
        if message:
            self._relieve([message])
            if message.receipt:
                message.receipt.taken()
        self._pump()

    def drop_all(self) -> None:
        """Drop all that is queued for the client."""
        self._lose([*self.inflight_out.values(), *self._backlog])

    def resume(self) -> None:
        """Send what the client never acknowledged again, then what has arrived since."""
        if self.connection:
            for message in self.inflight_out.values():
                self.connection.send(message.build_publish_packet(dup=True))
        self._pump()

    def _queue(self, message: Waiting) -> None:
        if self._pressure and message.sender:
            self._pressure.put(message.sender)
        if message.receipt:
            message.receipt.awaits()
        dropped = self._backlog.append(message, None if self.connection else self._queued)
        if dropped and not self._overflowed:
            log.warning("broker.queue_full", client_id=self.client_id, queued=len(self._backlog))
        self._overflowed = bool(dropped)
        self._lose(dropped)

    def _lose(self, messages: list[Waiting]) -> None:
        """Cut the senders of these messages that wait for a receipt: they reconnect and send them again."""
        self._relieve(messages)
        for message in messages:
            if message.receipt:
                message.receipt.dropped()

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
