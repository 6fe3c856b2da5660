"""Session over MQTT 5, made for one thing: a great many messages, each acknowledged late.

It is a thin layer over the codec :mod:`mqtt5`: no task, no callback and no lock per message. Messages wait in
:class:`gateway.mqtt.v5.receive_queue.ReceiveQueue` until the ingest takes them.

The codec's stub says that its enums are integers. They are not: they can be compared for equality, and converted.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import mqtt5

from gateway.mqtt.clearing import NEWS
from gateway.mqtt.coalescing import ReadCoalescer
from gateway.mqtt.session import (
    ANSWER_SECONDS,
    AT_LEAST_ONCE,
    BATCH,
    LinkError,
    PublishRefusedError,
    ReceivedMessage,
    Session,
    SubscriptionRefusedError,
    not_taken,
)
from gateway.mqtt.v5.receive_queue import ReceiveQueue
from gateway.mqtt.v5.wire import ProtocolError, Wire
from gateway.runtime.tracing import HEADER

_REFUSED: Final = 0x80
_PUBACK: Final = 0x4002
"""The first two bytes of a PUBACK that has a packet id and nothing more: success [MQTT 5, 3.4.2.1]."""
_LAST_PACKET_ID: Final = 0xFFFF
_PINGS_PER_KEEPALIVE: Final = 2
_AT_ONCE: Final = 50
"""Messages that are encoded at a time: about a third of a millisecond."""


class _Sent(NamedTuple):
    """A message on its way, and the future of the broker's answer."""

    topic: str
    answer: asyncio.Future[Any]


class Mqtt5Session(Session):
    """A session over one :class:`Wire`. ``greeted`` holds the broker's CONNACK once it has arrived."""

    sees_retained = True

    def __init__(self) -> None:
        self.wire = Wire(self._received)
        self.wire.closed.add_done_callback(self._ended)
        self.greeted: asyncio.Future[mqtt5.ConnAckPacket] = asyncio.get_running_loop().create_future()
        self._inbox = ReceiveQueue()
        self._news = asyncio.Event()
        self._unanswered: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._quota = _LAST_PACKET_ID
        self._in_flight = 0
        self._room = asyncio.Event()
        self._ping: asyncio.TimerHandle | None = None
        self._gathering = ReadCoalescer()

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _received(self, packets: Sequence[mqtt5.Packet]) -> None:
        inbox = self._inbox
        for packet in packets:
            if type(packet) is mqtt5.PublishPacket:
                inbox.put(packet)
            else:
                self._control(packet)
        if inbox:
            self._news.set()
            if inbox.full:
                self.wire.pause()

    def _control(self, packet: mqtt5.Packet) -> None:
        if isinstance(packet, mqtt5.PubAckPacket | mqtt5.SubAckPacket | mqtt5.UnsubAckPacket):
            self._answered(packet)
        elif isinstance(packet, mqtt5.ConnAckPacket):
            if self.greeted.done():
                raise ProtocolError("a second CONNACK")
            self.greeted.set_result(packet)
        elif isinstance(packet, mqtt5.DisconnectPacket):
            self.wire.fail(LinkError(f"The broker ended the connection: {words(packet)}"))
        elif not isinstance(packet, mqtt5.PingRespPacket):
            raise ProtocolError(f"{type(packet).__name__} from a server")

    async def receive_batch(self, limit: int = BATCH) -> list[ReceivedMessage]:
        """Return what has arrived; see :class:`Session`."""
        while not self._inbox and not self.wire.closed.done():
            self._news.clear()
            await self._news.wait()
        if self.wire.closed.done():
            raise self.wire.closed.result()
        deliveries = self._inbox.take(limit)
        if self.wire.paused and self._inbox.roomy:
            self.wire.resume()
        return deliveries

    async def pause_reading_for(self, seconds: float) -> None:
        """Do not read the socket for a while, so that one turn of the loop reads many messages."""
        if not (self._unanswered or self._gathering.is_brief):
            self.wire.pause()
        try:
            await self._gathering.wait(seconds)
        finally:  # the canceller may still publish, such as an offline message, and waits for the answer
            if not self._inbox.full:
                self.wire.resume()

    def expect_reply(self) -> None:
        """Read the next messages at once."""
        self._gathering.expect_reply()

    def acknowledge(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Acknowledge in the order of arrival, in one write."""
        ids = [delivery.packet_id for delivery in deliveries if delivery.qos]
        packets = array("H", [_PUBACK]) * (2 * len(ids))
        packets[1::2] = array("H", ids)
        if sys.byteorder == "little":  # MQTT is big-endian [MQTT 5, 1.5.2]
            packets.byteswap()
        self.wire.send(packets.tobytes())

    # --- what goes out ------------------------------------------------------------------------------------------------

    async def greet(self, packet: mqtt5.ConnectPacket) -> mqtt5.ConnAckPacket:
        """Send CONNECT; return the broker's answer, good or bad.

        Raises:
            LinkError: the broker did not answer.
        """
        self.wire.send(packet.write())
        either = (self.greeted, self.wire.closed)
        await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self.greeted.done():
            return self.greeted.result()
        raise self.wire.closed.result() if self.wire.closed.done() else LinkError("The broker did not answer CONNECT.")

    def begin(self, answer: mqtt5.ConnAckPacket, keepalive_seconds: int) -> None:
        """Apply the broker's limits [MQTT 5, 3.2.2.3]."""
        if not answer.retain_available or answer.max_qos == mqtt5.QoS.AT_MOST_ONCE:
            raise LinkError("The broker offers no retained messages, or no QoS 1: the gateway cannot work with it.")
        self._quota = answer.receive_max
        told = answer.server_keep_alive
        self._keep_alive((keepalive_seconds if told is None else told) / _PINGS_PER_KEEPALIVE)

    def _keep_alive(self, seconds: float) -> None:
        if seconds:
            self.wire.received_since_ping = True
            self._ping = asyncio.get_running_loop().call_later(seconds, self._tick, seconds)

    def _tick(self, seconds: float) -> None:
        if self.wire.closed.done():
            return
        if not self.wire.received_since_ping and not self.wire.paused:
            self.wire.fail(LinkError(f"The broker has said nothing for {seconds:g} s, not even to a ping."))
            self.wire.abort()
            return
        self.wire.received_since_ping = False
        self.wire.send(mqtt5.PingReqPacket().write())
        self._ping = asyncio.get_running_loop().call_later(seconds, self._tick, seconds)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = AT_LEAST_ONCE,
        retain: bool = False,
        content_type: str | None = None,
    ) -> None:
        """Publish; see :class:`Session`."""
        if qos:
            await self._taken([await self._send(topic, payload, retain=retain, content_type=content_type)])
        else:
            self.wire.send(_publish(topic, payload, retain=retain, content_type=content_type).write())
            await self.wire.drain()

    async def publish_all(
        self,
        messages: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        content_type: str | None = None,
        traces: Sequence[str | None] = (),
    ) -> None:
        """Publish as many in flight together as the broker allows."""
        if messages:
            told = zip_longest(messages, traces)
            sent = []
            for (topic, payload), at in told:
                sent.append(await self._send(topic, payload, retain=retain, content_type=content_type, trace=at))
                if len(sent) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self._taken(sent)

    async def _send(
        self, topic: str, payload: bytes, *, retain: bool, content_type: str | None, trace: str | None = None
    ) -> _Sent:
        while self._in_flight >= self._quota and not self.wire.closed.done():  # [MQTT-3.3.4-7]
            self._room.clear()
            await self._room.wait()
        self._in_flight += 1
        packet_id, answer = self._asked()
        packet = _publish(topic, payload, packet_id, retain=retain, content_type=content_type, trace=trace)
        self.wire.send(packet.write())
        return _Sent(topic, answer)

    async def _taken(self, sent: Sequence[_Sent]) -> None:
        """Wait for the broker's answers."""
        await asyncio.wait([each.answer for each in sent], timeout=ANSWER_SECONDS)
        answers = [(each.topic, each.answer.result() if each.answer.done() else None) for each in sent]
        for topic, answer in answers:
            if answer is None:
                raise not_taken(topic)
        refused = [(topic, words(said)) for topic, said in answers if said and int(said.reason_code) >= _REFUSED]
        if refused:
            raise PublishRefusedError([topic for topic, _ in refused], refused[0][1])

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1. What is retained arrives marked as such; what is published from now on does not.

        On topics that must not hold anything, the sender's retain flag is shown, so that it can be refused and cleared.
        """
        qos = mqtt5.QoS.AT_LEAST_ONCE
        wanted = [mqtt5.TopicFilter(name, max_qos=qos, retain_as_published=name.endswith(NEWS)) for name in filters]
        packet_id, answer = self._asked()
        codes = await self._answer(answer, mqtt5.SubscribePacket(packet_id, wanted), "a subscription")
        refused = [name for name, code in zip(filters, codes, strict=False) if int(code) >= _REFUSED]
        if refused:
            raise SubscriptionRefusedError(refused)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe."""
        packet_id, answer = self._asked()
        await self._answer(answer, mqtt5.UnsubscribePacket(packet_id, list(filters)), "the end of a subscription")

    async def _answer(
        self, answer: asyncio.Future[Any], packet: mqtt5.SubscribePacket | mqtt5.UnsubscribePacket, what: str
    ) -> Any:
        self.wire.send(packet.write())
        await asyncio.wait((answer,), timeout=ANSWER_SECONDS)
        if not answer.done() or answer.result() is None:
            raise LinkError(f"The broker did not take {what} within {ANSWER_SECONDS:g} s, or went away.")
        return answer.result().reason_codes

    async def disconnect(self) -> None:
        """Send DISCONNECT; return when it has left."""
        self.wire.send(mqtt5.DisconnectPacket().write())
        self.wire.close()
        await asyncio.wait((self.wire.closed,))

    def _asked(self) -> tuple[int, asyncio.Future[Any]]:
        """Return a free packet id and the future of its answer, which becomes None when no answer can arrive."""
        answer = asyncio.get_running_loop().create_future()
        self._gathering.end()
        if self.wire.closed.done():
            answer.set_result(None)
        while (packet_id := self._next_id()) in self._unanswered:
            pass
        self._unanswered[packet_id] = answer
        return packet_id, answer

    def _next_id(self) -> int:
        self._last_id = self._last_id % _LAST_PACKET_ID + 1
        return self._last_id

    def _answered(self, packet: mqtt5.PubAckPacket | mqtt5.SubAckPacket | mqtt5.UnsubAckPacket) -> None:
        """Pass on an answer. Only now is its packet id free, also when no task waits any more."""
        answer = self._unanswered.pop(packet.packet_id, None)
        if answer is not None and isinstance(packet, mqtt5.PubAckPacket):
            self._in_flight -= 1
            self._room.set()
        if answer is not None and not answer.done():
            answer.set_result(packet)

    def _ended(self, gone: asyncio.Future[LinkError]) -> None:  # noqa: ARG002 - the loop's
        self._news.set()
        self._room.set()
        self._gathering.end()
        for answer in self._unanswered.values():
            if not answer.done():
                answer.set_result(None)
        if self._ping is not None:
            self._ping.cancel()


def _publish(
    topic: str,
    payload: bytes,
    packet_id: int | None = None,
    *,
    retain: bool,
    content_type: str | None,
    trace: str | None = None,
) -> mqtt5.PublishPacket:
    """Return a PUBLISH at QoS 1, or without a packet id at QoS 0."""
    return mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_MOST_ONCE if packet_id is None else mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=packet_id,
        retain=retain,
        content_type=content_type,
        payload_format_indicator=int(content_type is not None),
        user_properties=None if trace is None else [(HEADER, trace)],
    )


def words(packet: mqtt5.DisconnectPacket | mqtt5.PubAckPacket | mqtt5.ConnAckPacket) -> str:
    """Return the broker's explanation: the name of the reason code, and its text."""
    name = packet.reason_code.name.replace("_", " ").capitalize()
    return f"{name}: {packet.reason_str}" if packet.reason_str else name
