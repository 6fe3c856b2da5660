"""Session over MQTT 3.1.1, through aiomqtt. The only file that uses aiomqtt's private parts.

aiomqtt acknowledges a message to the broker when it queues it. The gateway may only do so after its commit. So it turns
on paho's manual acknowledgement, which aiomqtt does not offer (its private ``_client``). Messages wait in aiomqtt's
queue. The broker's in-flight window should bound it, since nothing is acknowledged before it is taken out. Mosquitto
2.0 keeps to that window only until the first acknowledgement; then its own queue limit is the bound.

Two more things are done here instead of by aiomqtt. A publish that waits for the broker's answer fails at once when the
connection is gone. And a connection ends at once, whatever state the broker is in. Otherwise aiomqtt would wait ten
seconds for a broker that hangs. It would also disconnect cleanly, without the last will, when something failed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, cast

import aiomqtt
import structlog
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt import client as mqtt

from gateway.domain.messages import Message
from gateway.mqtt.coalescing import WAITED_FOR_SECONDS, ReadCoalescer
from gateway.mqtt.session import (
    ANSWER_SECONDS,
    AT_LEAST_ONCE,
    BATCH,
    CONNECT_SECONDS,
    TOLD_EVERY,
    WAITING_AT_QOS_0,
    BrokerAddress,
    LinkError,
    ReceivedMessage,
    Session,
    SubscriptionRefusedError,
    VersionRefusedError,
    not_taken,
)
from gateway.mqtt.v3.cancellation import raise_if_cancelled
from gateway.mqtt.v3.client import QuietClient
from gateway.mqtt.v3.sockets import watch_while_open

log = structlog.get_logger()

# aiomqtt takes the broker's answer to a call that was cancelled meanwhile, as at a stop, for an error.
logging.getLogger("mqtt").addFilter(lambda record: not str(record.msg).startswith("Unexpected message ID"))
_REFUSED: Final = 0x80
_UNSUPPORTED_VERSION: Final = (1, 132)  # CONNACK return code, and what paho makes of it


class _Sent(NamedTuple):
    """A message on its way; ``answer`` becomes whether the broker has accepted it."""

    topic: str
    packet_id: int
    answer: asyncio.Future[bool]


class AiomqttSession(Session):
    """A session over aiomqtt."""

    def __init__(self, client: aiomqtt.Client, *, devices_wait: bool = False) -> None:
        self._client = client
        self._paho = client._client  # noqa: SLF001 - see the module's docstring
        self._gone = client._disconnected  # noqa: SLF001
        self._queue = cast("_Inbox", client._queue)  # noqa: SLF001
        self._unanswered: dict[int, asyncio.Future[bool]] = {}
        self._paho.on_publish = self._answered
        self._gone.add_done_callback(self._nobody_answers)
        self._outlet = _Outlet(client)
        self._gathering = ReadCoalescer(WAITED_FOR_SECONDS if devices_wait else math.inf)

    async def receive_batch(self, limit: int = BATCH) -> list[ReceivedMessage]:
        """Return what has arrived; see :class:`Session`."""
        await self._arrival()
        return [_delivery(self._queue.get_nowait()) for _ in range(min(limit, self._queue.qsize()))]

    async def _arrival(self) -> None:
        """Wait until a message is there, and take none.

        aiomqtt's iterator takes it in a task. Where the wait is cancelled just then, as at the end of a look for other
        gateways, that message was lost until the next connect. It also starts a task for each message.
        """
        while self._queue.empty():
            if self._gone.done():
                raise LinkError(f"The connection to the broker was lost: {self._gone.exception() or 'it was closed'}")
            await asyncio.wait((self._queue.arrival(), self._gone), return_when=asyncio.FIRST_COMPLETED)

    async def pause_reading_for(self, seconds: float) -> None:
        """Let messages gather in the queue."""
        await self._gathering.wait(seconds)

    def expect_reply(self) -> None:
        """Receive the next messages soon."""
        self._gathering.expect_reply()

    def acknowledge(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Acknowledge in the order of arrival."""
        for delivery in deliveries:
            if delivery.qos == AT_LEAST_ONCE:
                self._paho.ack(delivery.packet_id, delivery.qos)

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = AT_LEAST_ONCE,
        retain: bool = False,
        content_type: str | None = None,  # noqa: ARG002 - this version has no field for it
    ) -> None:
        """Publish. A broker of this version acknowledges and drops what may not be published."""
        sent = self._send(topic, payload, qos, retain=retain)
        self._outlet.flush()
        await self._taken([sent])

    async def publish_all(
        self,
        messages: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        content_type: str | None = None,  # noqa: ARG002 - the same
        traces: Sequence[str | None] = (),  # noqa: ARG002 - the same
    ) -> None:
        """Publish all of them in flight together."""
        if messages:
            sent = [self._send(*each, AT_LEAST_ONCE, retain=retain) for each in messages]
            self._outlet.flush()
            await self._taken(sent)

    def _send(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> _Sent:
        sent = self._paho.publish(topic, payload, qos, retain)
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
        for each in sent:
            if not (each.answer.done() and each.answer.result()):
                raise not_taken(each.topic)

    def _answered(self, client: Any, userdata: Any, packet_id: int, reason: Any, properties: Any) -> None:  # noqa: ARG002 - paho's
        answer = self._unanswered.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result(True)

    def _nobody_answers(self, gone: asyncio.Future[Any]) -> None:  # noqa: ARG002 - the reason is reported elsewhere
        for answer in self._unanswered.values():
            if not answer.done():
                answer.set_result(False)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1."""
        try:
            codes = await self._client.subscribe([(name, AT_LEAST_ONCE) for name in filters])
        except aiomqtt.MqttError as error:
            raise LinkError(f"The broker did not take the subscription: {error}") from error
        refused = [name for name, code in zip(filters, codes, strict=False) if _code(code) >= _REFUSED]
        if refused:
            raise SubscriptionRefusedError(refused)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Give subscriptions up."""
        try:
            await self._client.unsubscribe(list(filters))
        except aiomqtt.MqttError as error:
            raise LinkError(f"The broker did not answer: {error}") from error

    async def disconnect(self) -> None:
        """Send DISCONNECT; return when it has left."""
        if self._paho.disconnect() == mqtt.MQTT_ERR_SUCCESS:
            await asyncio.wait((self._gone,))


class _Outlet:
    """Writes paho's packets to the socket: at once, and the rest when the socket accepts more.

    aiomqtt makes the loop watch the socket for every single packet, through the loop's call for other threads. A packet
    would leave two turns of the loop later, after whatever else is done in them.
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
        except Exception as error:  # noqa: BLE001 - as aiomqtt does: after any error the connection is unusable
            if not self._gone.done():
                self._gone.set_exception(error)
        left = self._paho.socket()
        if left is not None and self._paho.want_write():
            self._loop.add_writer(left, self.flush)  # aiomqtt removes it when paho has nothing more to write

    def _queued(self, client: Any, userdata: Any, opened: Any) -> None:  # noqa: ARG002 - paho's
        self._loop.call_soon(self.flush)


def _code(code: Any) -> int:
    return int(getattr(code, "value", code))


def _delivery(message: aiomqtt.Message) -> ReceivedMessage:
    return ReceivedMessage(Message(str(message.topic), message.payload, message.retain), message.mid, message.qos)


@asynccontextmanager
async def open_session(address: BrokerAddress, *, client_id: str, will: tuple[str, bytes]) -> AsyncIterator[Session]:
    """See :func:`gateway.mqtt.connect.open_session`."""
    client = _client(address, client_id, will)
    try:
        async with client:
            try:
                raise_if_cancelled()
                yield AiomqttSession(client, devices_wait=address.devices_wait)
            finally:
                _hang_up(client)
    except MqttConnectError as error:
        raise _refused(error) from error
    except _ClosedEarlyError as error:
        raise VersionRefusedError.closed(address) from error
    except (aiomqtt.MqttError, OSError) as error:
        raise LinkError(f"The broker at {address.host}:{address.port} cannot be reached: {error}") from error
    finally:
        _hang_up(client)


def _refused(error: MqttConnectError) -> LinkError:
    if _code(error.rc) in _UNSUPPORTED_VERSION:
        return VersionRefusedError(f"The broker does not speak this version of MQTT: {error}.")
    return LinkError(f"The broker refused the gateway: {error}. Check the user and password of 'broker'.")


def _hang_up(client: aiomqtt.Client) -> None:
    """Close the socket now. A connect that is still under way in aiomqtt's thread is abandoned."""
    paho = client._client  # noqa: SLF001 - see the module's docstring
    paho.on_socket_open = _turn_away
    paho._sock_close()  # noqa: SLF001
    gone, answer = client._disconnected, client._connected  # noqa: SLF001
    if not gone.done():
        gone.set_result(None)  # or leaving aiomqtt's block would wait for the broker
    for outcome in (gone, answer):
        if outcome.done() and not outcome.cancelled():
            outcome.exception()  # reported already, or not needed any more


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
        if not answer.cancelled():  # no task waits for it any more; aiomqtt would fail over that
            forward(*facts)

    paho.on_disconnect = ended


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """Queue that aiomqtt fills. The in-flight window bounds QoS 1; only this bounds QoS 0."""

    _dropped = 0
    _arrived: asyncio.Future[None] | None = None

    def arrival(self) -> asyncio.Future[None]:
        """Return a future that is done when the next message is added."""
        if self._arrived is None or self._arrived.done():
            self._arrived = asyncio.get_running_loop().create_future()
        return self._arrived

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Add a message, or drop it when it may be dropped [MQTT 4.3.1] and too many wait."""
        if item.qos or self.qsize() < WAITING_AT_QOS_0:
            super().put_nowait(item)
            if self._arrived is not None and not self._arrived.done():
                self._arrived.set_result(None)
            return
        if self._dropped % TOLD_EVERY == 0:
            log.warning("ingest.dropped_at_qos_0", topic=str(item.topic), dropped_before=self._dropped)
        self._dropped += 1


def _client(address: BrokerAddress, client_id: str, will: tuple[str, bytes]) -> aiomqtt.Client:
    client = QuietClient(
        address.host,
        address.port,
        username=address.username,
        password=address.password,
        identifier=client_id,
        queue_type=_Inbox,
        protocol=aiomqtt.ProtocolVersion.V311,
        will=aiomqtt.Will(will[0], will[1], qos=AT_LEAST_ONCE, retain=True),
        clean_session=False,
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
