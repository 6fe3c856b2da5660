"""MQTT connection of a device over WiFi or the modem. Only this file of the package imports aiomqtt."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_sim.actions import (
    CommandReceived,
    Connection,
    Input,
    LinkDown,
    LinkRefused,
    LinkUp,
    Publish,
    RefusalReceived,
)
from device_sim.backoff import Backoff
from device_sim.binding import Binding
from device_sim.cancellation import raise_if_cancelled
from device_sim.error_hints import broker_trust_hint
from device_sim.errors import RadioError, caused_by
from device_sim.options import Options
from device_sim.sockets import watch_while_open
from device_sim.tls import tls_context
from device_sim.wire import OFFLINE, Topics

Deliver = Callable[[Input], None]

LIBRARY_LOG = logging.getLogger("device_sim.mqtt")
LIBRARY_LOG.setLevel(logging.CRITICAL)  # a fact reports each lost link, and simulated links are lost often

QOS = 1
CONFIRM_SECONDS = 10.0
SESSION_EXPIRY_SECONDS = 0xFFFFFFFF  # never; Mosquitto 2.0 may crash on an expiring session that SIGHUP cut
REPORT_AFTER_REFUSALS = 3
NOT_AUTHORISED = frozenset({0x86, 0x87, 0x8A})  # bad user name or password · not authorised · banned (MQTT 5, 3.2.2.2)
FIRST_FAILURE_CODE = 0x80


class Radio(Protocol):
    """Link that reconnects by itself: `run` it as a task, `publish` through it, cancel the task to close it."""

    async def run(self) -> None:
        """Connect, and reconnect after each loss, until cancelled."""

    async def publish(self, message: Publish) -> None:
        """Send one message and wait until it is confirmed. Raise `RadioError` without a confirmation."""

    def cut(self) -> None:
        """Break the connection without DISCONNECT, as a lost link or an empty battery does."""


class MqttRadio:
    """MQTT connection of one device. User name and client id are its device id; the password is derived from its token.

    It has a persistent session and a retained last will. QoS is 1 both ways. It subscribes to every command topic by
    its full name (section 3).
    """

    def __init__(
        self,
        binding: Binding,
        connection: Connection,
        deliver: Deliver,
        backoff: Backoff,
        options: Options,
    ) -> None:
        self._binding = binding
        self._connection = connection
        self._deliver = deliver
        self._backoff = backoff
        self._options = options
        self._topics = Topics(binding.device_id, binding.mqtt.topic_prefix)
        self._client: aiomqtt.Client | None = None
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Connect, and reconnect with growing pauses, until cancelled."""
        while True:
            delay = await self._run_connection()
            raise_if_cancelled()
            await asyncio.sleep(delay)

    async def publish(self, message: Publish) -> None:
        """Send with QoS 1 and wait for the PUBACK. Without one within 10 s the connection is cut."""
        client = self._client
        if client is None:
            raise RadioError("the link is down")
        sending = asyncio.ensure_future(self._send(client, message))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait((sending, lost), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            if not sending.done():
                sending.cancel()
        if not sending.done():
            raise RadioError("the link went down before the PUBACK")
        self._check_sent(sending)

    def cut(self) -> None:
        """Shut the socket without a DISCONNECT, so that the broker publishes the will [MQTT-3.1.2-8]."""
        if self._client is None:
            return
        sock = self._client._client.socket()  # noqa: SLF001  # aiomqtt cannot end a connection without DISCONNECT
        self._client = None
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    async def _send(self, client: aiomqtt.Client, message: Publish) -> None:
        await client.publish(
            self._topic(message), message.payload, qos=QOS, retain=message.kind == "status", timeout=CONFIRM_SECONDS
        )

    def _check_sent(self, sending: "asyncio.Future[None]") -> None:
        try:
            sending.result()
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            self.cut()
            raise RadioError(str(error)) from error

    def _topic(self, message: Publish) -> str:
        return self._topics.ack(str(message.command_type)) if message.kind == "ack" else self._topics.of(message.kind)

    async def _run_connection(self) -> float:
        """Run one connection to its end, and return the pause after it, in seconds."""
        up_since: float | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                client = await self._connect(stack)
                up_since = time.monotonic()
                await self._run_session(client)
            reason = "the connection was closed"
        except aiomqtt.MqttError as error:
            if _is_refusal(error):
                return self._count_refusal(str(error))
            reason = _describe_error(error)
        self._deliver(LinkDown(reason))
        return self._backoff.after_loss(held=0.0 if up_since is None else time.monotonic() - up_since)

    async def _connect(self, stack: contextlib.AsyncExitStack) -> aiomqtt.Client:
        """Connect. paho does it in a thread that can't be cancelled, so a cancellation waits for it and then closes."""
        client = self._new_client()
        connecting = asyncio.ensure_future(stack.enter_async_context(client))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with contextlib.suppress(aiomqtt.MqttError):
                await connecting
            raise

    async def _run_session(self, client: aiomqtt.Client) -> None:
        errors = self._topics.of("errors")  # published with QoS 0
        wanted = [(topic, 0 if topic == errors else QOS) for topic in self._topics.subscriptions()]
        reason_codes = await client.subscribe(wanted)
        raise_if_cancelled()
        if any(_reason_code(each) >= FIRST_FAILURE_CODE for each in reason_codes):
            raise aiomqtt.MqttError("the broker refused a subscription to one of this device's own topics")
        self._client, self._lost = client, asyncio.Event()
        self._deliver(LinkUp(self._connection, "mqtt"))
        try:
            async for message in client.messages:
                self._receive(message)
        except asyncio.CancelledError:
            if self._client is not None:
                await self._publish_offline(client)
            raise
        finally:
            self._client = None
            self._lost.set()

    async def _publish_offline(self, client: aiomqtt.Client) -> None:
        """Publish `offline` unless the link is broken: a DISCONNECT discards the will [MQTT-3.14.4-3]."""
        with contextlib.suppress(aiomqtt.MqttError, OSError):
            await client.publish(self._topics.of("status"), OFFLINE, qos=QOS, retain=True, timeout=1)

    def _receive(self, message: aiomqtt.Message) -> None:
        payload = bytes(message.payload)
        topic = message.topic.value
        if topic == self._topics.of("errors"):
            self._deliver(RefusalReceived(payload))
        else:
            self._deliver(CommandReceived(topic.rpartition("/")[2], payload))

    def _count_refusal(self, reason: str) -> float:
        delay = self._backoff.after_refusal()
        if self._backoff.refusals == REPORT_AFTER_REFUSALS:
            self._deliver(LinkRefused(self._backoff.refusals, reason))
        return delay

    def _new_client(self) -> aiomqtt.Client:
        endpoint, is_mqtt5 = self._binding.mqtt, self._options.mqtt_version == "5"
        client = aiomqtt.Client(
            endpoint.host,
            endpoint.port,
            logger=LIBRARY_LOG,
            username=self._binding.device_id,
            password=self._binding.mqtt_password,
            identifier=self._binding.device_id,
            protocol=aiomqtt.ProtocolVersion.V5 if is_mqtt5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(self._topics.of("status"), OFFLINE, qos=QOS, retain=True),
            clean_session=None if is_mqtt5 else False,
            clean_start=False if is_mqtt5 else MQTT_CLEAN_START_FIRST_ONLY,  # paho requires it before MQTT 5
            properties=_session_expiry() if is_mqtt5 else None,
            keepalive=self._options.keepalive_seconds,
            timeout=CONFIRM_SECONDS,
            # Without TCP_NODELAY a PUBACK and the acknowledgement after it wait 40 ms for each other's TCP ACK.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            tls_context=_make_tls_context(self._options) if endpoint.tls else None,
        )
        watch_while_open(client)
        # Read the error, since no task may wait when a link breaks during its shutdown. asyncio logs errors never read.
        client._disconnected.add_done_callback(_retrieve_error)  # noqa: SLF001  # aiomqtt reads it only while a call waits
        return client


def _retrieve_error(ended: "asyncio.Future[None]") -> None:
    if not ended.cancelled():
        ended.exception()


def _describe_error(error: aiomqtt.MqttError) -> str:
    tls_error = caused_by(error, ssl.SSLError)
    if not isinstance(tls_error, ssl.SSLCertVerificationError):
        return str(error)
    reason = tls_error.verify_message.rstrip(".")
    return f"the broker's certificate is not trusted ({reason}): {broker_trust_hint(tls_error.verify_code)}"


def _make_tls_context(options: Options) -> ssl.SSLContext:
    return tls_context(options.ca_file, options.cert_file, options.key_file)


def _session_expiry() -> Properties:
    """Return how many seconds a session outlives its connection; without it MQTT 5 ends both together."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it without types
    properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS
    return properties


def _is_refusal(error: aiomqtt.MqttError) -> bool:
    return isinstance(error, aiomqtt.MqttCodeError) and _reason_code(error.rc) in NOT_AUTHORISED


def _reason_code(answer: int | ReasonCode | None) -> int:
    return answer.value if isinstance(answer, ReasonCode) else int(answer or 0)
