"""The gateway's session on the virtual broker: what :mod:`gateway.mqtt.connect` is on a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from gateway.domain.messages import Message
from gateway.mqtt.session import (
    ANSWER_SECONDS,
    BATCH,
    BrokerAddress,
    LinkError,
    PublishRefusedError,
    ReceivedMessage,
    Session,
)
from tests.simulation.broker import Broker
from tests.simulation.broker_session import Packet
from tests.simulation.gateway_process import KillableProcess
from tests.simulation.mqtt_client import Client, ClosedError

GATEWAY_PASSWORD = "the gateway's own"


Answer = asyncio.Future[str | None]
"""Why a publish was refused, or ``None`` when it was not."""


class GatewayObserver(Protocol):
    """Observer of what the gateway sends, and what it acknowledges.

    ``epoch`` is that of the lease under which it works, or 0 where it is the only gateway.
    """

    epoch: int

    def on_publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """The gateway hands a message to the broker."""

    def on_acknowledge(self, message: Message, arrived_at_commit: int) -> None:
        """The gateway acknowledges this message to the broker."""

    def commit_count(self) -> int:
        """How many commits there were."""


class VirtualSession(Session):
    """``batch`` hands out what is here, ``publish`` waits for the broker, and everything passes a seam."""

    def __init__(
        self, client: Client, process: KillableProcess, observer: GatewayObserver
    ) -> None:  # no link beneath: no super call
        self._virtual = client
        self._process = process
        self._observer = observer
        self._received: dict[int, tuple[Packet, int]] = {}

    async def receive_batch(self, limit: int = BATCH) -> list[ReceivedMessage]:
        """Wait for a message; that one and those that are here already."""
        self._process.seam("batch")
        try:
            await self._virtual.wait_for_message()
        except ClosedError as error:
            raise LinkError(f"The connection to the broker was lost: {error}") from error
        self._process.seam("batch")
        inbox = self._virtual.inbox
        return [self._delivery(inbox.popleft()) for _ in range(min(limit, len(inbox)))]

    def _delivery(self, packet: Packet) -> ReceivedMessage:
        self._received[packet.packet_id] = (packet, self._observer.commit_count())
        return ReceivedMessage(Message(packet.topic, packet.payload, packet.retain), packet.packet_id, packet.qos)

    def acknowledge(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """PUBACK each, in the order in which they came."""
        for delivery in deliveries:
            self._process.seam("acknowledge")
            packet, arrived = self._received.pop(delivery.packet_id, (None, 0))
            if packet is not None and packet.qos:
                self._observer.on_acknowledge(delivery.message, arrived)
                self._virtual.acknowledge(packet)

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, content_type: str | None = None
    ) -> None:
        """Publish; at QoS 1 until the broker has it."""
        del content_type  # what MQTT 5 says beside the payload changes nothing here
        await self._process.pause_point("publish")
        await self._wait_for_answer(topic, self._send(topic, payload, qos, retain=retain))

    async def publish_all(
        self,
        messages: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        content_type: str | None = None,
        traces: Sequence[str | None] = (),
    ) -> None:
        """Publish at QoS 1, all in flight together."""
        del content_type, traces
        sent = []
        for topic, payload in messages:
            await self._process.pause_point("publish")
            sent.append((topic, self._send(topic, payload, 1, retain=retain)))
        refused: list[str] = []
        reason = ""
        for topic, answer in sent:
            try:
                await self._wait_for_answer(topic, answer)
            except PublishRefusedError as error:
                refused.append(topic)
                reason = error.reason
        if refused:
            raise PublishRefusedError(refused, reason)

    def publish_now(self, topic: str, payload: bytes) -> None:
        """Publish, retained, without waiting: nothing of the gateway does so."""
        self._send(topic, payload, 1, retain=True)

    def _send(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> Answer:
        self._process.seam("publish")
        self._observer.on_publish(topic, payload, retain=retain)
        return self._virtual.send(topic, payload, qos=qos, retain=retain, epoch=self._observer.epoch)

    async def _wait_for_answer(self, topic: str, answer: Answer) -> None:
        await asyncio.wait((answer, self._virtual.closed), timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        self._process.seam("published")
        await self._process.pause_point("published")
        if not answer.done():
            raise LinkError(f"The broker did not take a message on {topic} within {ANSWER_SECONDS:g} s, or went away.")
        refused = answer.result()
        if refused is not None:
            raise PublishRefusedError([topic], refused)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1."""
        self._process.seam("subscribe")
        try:
            await self._virtual.subscribe(filters)
        except ClosedError as error:
            raise LinkError(f"The broker did not take the subscription: {error}") from error

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give subscriptions up."""
        self._process.seam("unsubscribe")
        try:
            await self._virtual.unsubscribe(filters)
        except ClosedError as error:
            raise LinkError(f"The broker did not answer: {error}") from error

    async def disconnect(self) -> None:
        """Send DISCONNECT; returns when it has left."""
        self._process.seam("leave")
        self._virtual.disconnect()
        await asyncio.wait((self._virtual.closed,), timeout=ANSWER_SECONDS)


@asynccontextmanager
async def open_session(
    broker: Broker,
    process: KillableProcess,
    observer: GatewayObserver,
    latency: Callable[[], float],
    address: BrokerAddress,
    *,
    client_id: str,
    will: tuple[str, bytes],
) -> AsyncIterator[Session]:
    """A session as ``gateway.mqtt.connect.open_session`` opens it; the connection breaks at the end of the block."""
    process.seam("connect")
    client = Client(broker, latency)
    process.connections.append(client.connection)
    try:
        await client.connect(client_id, address.username or "", address.password or "", will)
        process.seam("connected")
        yield VirtualSession(client, process, observer)
    except ClosedError as error:
        raise LinkError(f"The broker cannot be reached: {error}") from error
    finally:
        client.connection.cut("the gateway hung up")
