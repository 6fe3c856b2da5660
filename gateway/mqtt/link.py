"""One connection to the broker. The only file that imports aiomqtt, and the only one that reaches behind it.

aiomqtt acknowledges a message to the broker when it queues it. The gateway may only do so after its commit, so paho's
manual acknowledgement is switched on, which aiomqtt does not offer (its private ``_client``). Messages wait in
aiomqtt's queue; the broker's in-flight window bounds it, since nothing is acknowledged before it is taken out.

Two more things are done here rather than by aiomqtt: a publish waits for the broker's answer with its reason code, and
hears at once when the connection is gone; and a connection ends at once, however the broker is. aiomqtt would wait ten
seconds for a broker that hangs, and say good-bye in order, without the last will, when something failed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiomqtt
import structlog
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.inbound import Message
from gateway.mqtt.cancellation import heed_cancellation
from gateway.mqtt.sockets import watch_while_open

log = structlog.get_logger()

BATCH: Final = 500
RECEIVE_MAXIMUM: Final = 1_000
WAITING_AT_QOS_0: Final = 5_000
NEVER: Final = 0xFFFF_FFFF  # a session that expires can crash Mosquitto 2.0 (docs/mosquitto.md)
CONNECT_SECONDS: Final = 4.0
ANSWER_SECONDS: Final = 10.0
_TOLD_EVERY: Final = 1_000
_AT_LEAST_ONCE: Final = 1
_UNSUPPORTED_VERSION: Final = (1, 132)  # CONNACK return code of 3.1.1, reason code of 5
_FAILURE: Final = 0x80


class LinkError(Exception):
    """The broker cannot be reached, refused us, or went away. The message says which."""


class VersionRefusedError(LinkError):
    """The broker does not speak this version of MQTT, or closed without a word, which may mean the same."""


class SubscriptionRefusedError(LinkError):
    """The broker does not let the gateway read there."""


class PublishRefusedError(LinkError):
    """The broker took publishes and refused to do them (MQTT 5 only): the gateway's rights do not suffice."""

    def __init__(self, topics: Sequence[str], reason: str) -> None:
        self.topics = tuple(topics)
        self.reason = reason
        super().__init__(
            f"The broker refused {len(topics)} publishes ({reason}), the first on {topics[0]}. Give the gateway's user "
            "the right to write on devices/# and gateways/# there."
        )


@dataclass(frozen=True)
class Address:
    """Where the broker is and as whom the gateway comes; ``version`` is ``"5"`` or ``"3.1.1"``."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    version: str = "3.1.1"
    keepalive_seconds: int = 30


@dataclass(frozen=True)
class Delivery:
    """A message and what the broker calls it until it is acknowledged."""

    message: Message
    packet_id: int
    qos: int


class _Sent(NamedTuple):
    """A message on its way; ``answer`` is what the broker says to it, ``None`` when it will not say anything."""

    topic: str
    packet_id: int
    answer: asyncio.Future[ReasonCode | None]


class Session:
    """A live connection with a persistent session on the broker's side."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._paho = client._client  # noqa: SLF001 - see the module's docstring
        self._gone = client._disconnected  # noqa: SLF001
        self._queue = client._queue  # noqa: SLF001
        self._version_5 = self._paho.protocol == mqtt.MQTTv5
        self._unanswered: dict[int, asyncio.Future[ReasonCode | None]] = {}
        self._paho.on_publish = self._answered
        self._gone.add_done_callback(self._nobody_answers)
        self._outlet = _Outlet(client)

    async def batch(self, limit: int = BATCH) -> list[Delivery]:
        """Wait for a message; that one and those that are here already, ``limit`` at most.

        Raises:
            LinkError: the connection is gone.
        """
        try:
            first = await anext(aiter(self._client.messages))
        except aiomqtt.MqttError as error:
            raise LinkError(f"The connection to the broker was lost: {error.__cause__ or error}") from error
        # aiomqtt's iterator starts a task per message.
        rest = [self._queue.get_nowait() for _ in range(min(limit - 1, self._queue.qsize()))]
        return [_delivery(message) for message in (first, *rest)]

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Tell the broker that these are committed, in the order in which they came [MQTT-4.6.0-2]."""
        for delivery in deliveries:
            if delivery.qos == _AT_LEAST_ONCE:
                self._paho.ack(delivery.packet_id, delivery.qos)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = _AT_LEAST_ONCE,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Publish; at QoS 1 until the broker has it, at QoS 0 until it has left. MQTT 3.1.1 has no ``properties``.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused it.
            LinkError: the broker did not take it in time, or the connection is gone.
        """
        sent = self._send(topic, payload, qos, retain=retain, properties=properties)
        self._outlet.flush()
        await self._taken([sent])

    async def publish_retained(self, messages: Sequence[tuple[str, bytes]], *, content_type: str | None = None) -> None:
        """Publish retained messages at QoS 1, all in flight together; an empty payload clears its topic.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused its ``topics``, and took all others.
            LinkError: not all were taken.
        """
        await self.publish_all(messages, retain=True, content_type=content_type)

    async def publish_all(
        self, messages: Sequence[tuple[str, bytes]], *, retain: bool = False, content_type: str | None = None
    ) -> None:
        """Publish at QoS 1, all in flight together; MQTT 5 tells subscribers the ``content_type``.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused its ``topics``, and took all others.
            LinkError: not all were taken.
        """
        if messages:
            kind = None if content_type is None else _content(content_type)
            sent = [self._send(*each, _AT_LEAST_ONCE, retain=retain, properties=kind) for each in messages]
            self._outlet.flush()
            await self._taken(sent)

    def _send(self, topic: str, payload: bytes, qos: int, *, retain: bool, properties: Properties | None) -> _Sent:
        sent = self._paho.publish(topic, payload, qos, retain, properties if self._version_5 else None)
        if sent.rc != mqtt.MQTT_ERR_SUCCESS or self._gone.done():
            raise LinkError(f"The broker did not take a message on {topic}: {mqtt.error_string(sent.rc)}")
        answer = self._unanswered[sent.mid] = asyncio.get_running_loop().create_future()
        return _Sent(topic, sent.mid, answer)

    async def _taken(self, sent: Sequence[_Sent]) -> None:
        """Wait for the broker's answers."""
        try:
            await asyncio.wait([each.answer for each in sent], timeout=ANSWER_SECONDS)
        finally:
            for each in sent:
                self._unanswered.pop(each.packet_id, None)
        reasons = [(each.topic, each.answer.result() if each.answer.done() else None) for each in sent]
        for topic, reason in reasons:
            if reason is None:
                raise LinkError(
                    f"The broker did not take a message on {topic} within {ANSWER_SECONDS:g} s, or went away."
                )
        refused = [(topic, str(reason)) for topic, reason in reasons if reason is not None and reason.is_failure]
        if refused:
            raise PublishRefusedError([topic for topic, _ in refused], refused[0][1])

    def _answered(self, client: Any, userdata: Any, packet_id: int, reason: Any, properties: Any) -> None:  # noqa: ARG002 - paho's
        answer = self._unanswered.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result(reason)

    def _nobody_answers(self, gone: asyncio.Future[Any]) -> None:  # noqa: ARG002 - why is told elsewhere
        for answer in self._unanswered.values():
            if not answer.done():
                answer.set_result(None)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1.

        Raises:
            SubscriptionRefusedError: the broker refused one.
            LinkError: the connection is gone.
        """
        try:
            codes = await self._client.subscribe([(name, _AT_LEAST_ONCE) for name in filters])
        except aiomqtt.MqttError as error:
            raise LinkError(f"The broker did not take the subscription: {error}") from error
        refused = [name for name, code in zip(filters, codes, strict=False) if _code(code) >= _FAILURE]
        if refused:
            raise SubscriptionRefusedError(
                f"The broker refused to subscribe the gateway to {', '.join(refused)}. Check its rights there."
            )

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give subscriptions up.

        Raises:
            LinkError: the connection is gone.
        """
        try:
            await self._client.unsubscribe(list(filters))
        except aiomqtt.MqttError as error:
            raise LinkError(f"The broker did not answer: {error}") from error

    async def leave(self) -> None:
        """Say good-bye, so that the broker drops the last will; returns when that has left."""
        if self._paho.disconnect() == mqtt.MQTT_ERR_SUCCESS:
            await asyncio.wait((self._gone,))


def _content(content_type: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's
    properties.ContentType = content_type
    properties.PayloadFormatIndicator = 1  # UTF-8
    return properties


class _Outlet:
    """Brings paho's packets onto the socket: at once, and what does not fit when the socket takes more.

    aiomqtt has the loop watch the socket for every single packet, and by way of the loop's door for other threads. So a
    packet would leave two turns of the loop later, after whatever else is done in them.
    """

    def __init__(self, client: aiomqtt.Client) -> None:
        self._loop = asyncio.get_running_loop()
        self._paho = client._client  # noqa: SLF001 - see the module's docstring
        self._gone = client._disconnected  # noqa: SLF001
        self._paho.on_socket_register_write = self._queued

    def flush(self) -> None:
        """Send what is queued."""
        try:
            self._paho.loop_write()
        except Exception as error:  # noqa: BLE001 - as aiomqtt does: whatever it is, the connection is of no use any more
            if not self._gone.done():
                self._gone.set_exception(error)
        left = self._paho.socket()
        if left is not None and self._paho.want_write():
            self._loop.add_writer(left, self.flush)  # aiomqtt removes it when paho has nothing more to write

    def _queued(self, client: Any, userdata: Any, opened: Any) -> None:  # noqa: ARG002 - paho's
        self._loop.call_soon(self.flush)


def _code(code: Any) -> int:
    return int(getattr(code, "value", code))


def _delivery(message: aiomqtt.Message) -> Delivery:
    return Delivery(Message(str(message.topic), message.payload, message.retain), message.mid, message.qos)


@asynccontextmanager
async def open_session(address: Address, *, client_id: str, will: tuple[str, bytes]) -> AsyncIterator[Session]:
    """Connect with a persistent session and a retained last will; at the end the socket is closed at once.

    So the broker publishes the will, unless :meth:`Session.leave` was called before.

    Raises:
        VersionRefusedError: the broker does not speak this version.
        LinkError: it cannot be reached, refused us, or the connection was lost inside the block.
    """
    client = _client(address, client_id, will)
    try:
        async with client:
            try:
                heed_cancellation()
                yield Session(client)
            finally:
                _hang_up(client)
    except MqttConnectError as error:
        raise _refused(error) from error
    except _ClosedEarlyError as error:
        raise VersionRefusedError(
            f"The broker at {address.host}:{address.port} closed the connection without an answer (to MQTT "
            f"{address.version}). Check that this is its MQTT port, and whether it wants TLS."
        ) from error
    except (aiomqtt.MqttError, OSError) as error:
        raise LinkError(f"The broker at {address.host}:{address.port} cannot be reached: {error}") from error
    finally:
        _hang_up(client)


def _refused(error: MqttConnectError) -> LinkError:
    if _code(error.rc) in _UNSUPPORTED_VERSION:
        return VersionRefusedError(f"The broker does not speak this version of MQTT: {error}.")
    return LinkError(f"The broker refused the gateway: {error}. Check the user and password of 'broker'.")


def _hang_up(client: aiomqtt.Client) -> None:
    """Close the socket now. A connect that is still on its way in aiomqtt's thread comes to nothing."""
    paho = client._client  # noqa: SLF001 - see the module's docstring
    paho.on_socket_open = _turn_away
    paho._sock_close()  # noqa: SLF001
    gone, answer = client._disconnected, client._connected  # noqa: SLF001
    if not gone.done():
        gone.set_result(None)  # or leaving aiomqtt's block would wait for the broker
    for outcome in (gone, answer):
        if outcome.done() and not outcome.cancelled():
            outcome.exception()  # has been told already, or is of no interest any more


def _turn_away(client: Any, userdata: Any, opened: Any) -> None:  # noqa: ARG001 - paho's
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


class _ClosedEarlyError(aiomqtt.MqttError):
    """The broker closed the connection before it answered CONNECT; aiomqtt would wait ten seconds more."""


def _notice_early_end(client: aiomqtt.Client) -> None:
    paho = client._client  # noqa: SLF001 - see the module's docstring
    forward: Any = paho.on_disconnect

    def ended(*facts: Any) -> None:
        answer = client._connected  # noqa: SLF001
        if not answer.done():
            answer.set_exception(_ClosedEarlyError())
        if not answer.cancelled():  # nobody waits for it any more; aiomqtt would stumble over that
            forward(*facts)

    paho.on_disconnect = ended


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """Where aiomqtt puts what arrives. The in-flight window holds back QoS 1; nothing but this holds back QoS 0."""

    _dropped = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Take it in, or drop it when it may be dropped [MQTT 4.3.1] and too many wait."""
        if item.qos or self.qsize() < WAITING_AT_QOS_0:
            super().put_nowait(item)
            return
        if self._dropped % _TOLD_EVERY == 0:
            log.warning("ingest.dropped_at_qos_0", topic=str(item.topic), dropped_before=self._dropped)
        self._dropped += 1


def _client(address: Address, client_id: str, will: tuple[str, bytes]) -> aiomqtt.Client:
    version_5 = address.version == "5"
    client = aiomqtt.Client(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        queue_type=_Inbox,
        protocol=aiomqtt.ProtocolVersion.V5 if version_5 else aiomqtt.ProtocolVersion.V311,
        will=aiomqtt.Will(will[0], will[1], qos=_AT_LEAST_ONCE, retain=True),
        clean_session=None if version_5 else False,
        clean_start=False if version_5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
        properties=_connect_properties() if version_5 else None,
        tls_context=address.tls,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # or small packets wait for each other's TCP ACK
        keepalive=address.keepalive_seconds,
        timeout=ANSWER_SECONDS,
    )
    paho = client._client  # noqa: SLF001 - see the module's docstring
    paho.manual_ack_set(on=True)
    paho.connect_timeout = CONNECT_SECONDS
    watch_while_open(client)
    _notice_early_end(client)
    return client


def _connect_properties() -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's
    properties.SessionExpiryInterval = NEVER
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    return properties
