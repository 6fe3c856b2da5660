"""Interface of a connection to the broker, for either MQTT version.

There are two implementations: :mod:`gateway.mqtt.v5.connect` for brokers that speak MQTT 5, and
:mod:`gateway.mqtt.v3.session` for those that speak 3.1.1. The gateway holds one connection with one persistent session.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.domain.messages import Message

BATCH: Final = 4_000
RECEIVE_MAXIMUM: Final = 4_000
WAITING_AT_QOS_0: Final = 5_000
CONNECT_SECONDS: Final = 4.0
ANSWER_SECONDS: Final = 10.0
TOLD_EVERY: Final = 1_000
AT_LEAST_ONCE: Final = 1


class LinkError(Exception):
    """The broker cannot be reached, refused us, or went away. The message says which."""


class VersionRefusedError(LinkError):
    """The broker does not speak this version of MQTT, or closed without an answer, which may mean the same."""

    @classmethod
    def closed(cls, address: BrokerAddress) -> VersionRefusedError:
        """Return the error for a connection that was closed before the answer to CONNECT."""
        return cls(
            f"The broker at {address.host}:{address.port} closed the connection without an answer (to MQTT "
            f"{address.version}). Check that this is its MQTT port, and whether it wants TLS."
        )


class SubscriptionRefusedError(LinkError):
    """The broker refuses the gateway this subscription."""

    def __init__(self, filters: Sequence[str]) -> None:
        super().__init__(
            f"The broker refused to subscribe the gateway to {', '.join(filters)}. Check its rights there."
        )


class PublishRefusedError(LinkError):
    """The broker refused publishes (MQTT 5 only): the gateway's rights do not suffice."""

    def __init__(self, topics: Sequence[str], reason: str) -> None:
        self.topics = tuple(topics)
        self.reason = reason
        super().__init__(
            f"The broker refused {len(topics)} publishes ({reason}), the first on {topics[0]}. Give the gateway's user "
            "the right to write on devices/# and gateways/# there."
        )


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is and as whom the gateway connects; ``version`` is ``"5"`` or ``"3.1.1"``.

    ``devices_wait``: a device gets its PUBACK only after the gateway has acknowledged to the broker (the embedded one).
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    version: str = "3.1.1"
    keepalive_seconds: int = 30
    devices_wait: bool = False
    shared: bool = False
    """Whether other gateways may connect to it; not to a broker that the gateway runs itself."""


class ReceivedMessage(NamedTuple):
    """A message, and its handle for the acknowledgement."""

    message: Message
    packet_id: int
    qos: int


class Session(ABC):
    """A live connection with a persistent session on the broker's side."""

    sees_retained: bool = False
    """Whether a message shows that it was sent retained (MQTT 5). Otherwise only a later subscription shows it."""

    @abstractmethod
    async def receive_batch(self, limit: int = BATCH) -> list[ReceivedMessage]:
        """Wait for a message; return it and those that have arrived already, at most ``limit``.

        Raises:
            LinkError: the connection is gone.
        """

    async def pause_reading_for(self, seconds: float) -> None:
        """Let messages gather for so long; shorter while :meth:`expect_reply` counts or devices wait for answers.

        They may be left with the broker, unless it was asked something.
        """
        await asyncio.sleep(seconds)

    def expect_reply(self) -> None:  # noqa: B027 - nothing waits for the answer of a simulated one
        """Expect answers of devices: end a pause, and keep the next ones short for a while."""

    @abstractmethod
    def acknowledge(self, deliveries: Iterable[ReceivedMessage]) -> None:
        """Acknowledge these messages, which are committed, in the order in which they came [MQTT-4.6.0-2]."""

    @abstractmethod
    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = AT_LEAST_ONCE,
        retain: bool = False,
        content_type: str | None = None,
    ) -> None:
        """Publish; at QoS 1 until the broker has it, at QoS 0 until it is sent.

        MQTT 5 passes the ``content_type`` to subscribers.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused it.
            LinkError: the broker did not answer in time, or the connection is gone.
        """

    async def publish_retained(
        self,
        messages: Sequence[tuple[str, bytes]],
        *,
        content_type: str | None = None,
        traces: Sequence[str | None] = (),
    ) -> None:
        """Publish retained messages at QoS 1, all in flight together. An empty payload clears its topic.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused its ``topics``, and accepted all others.
            LinkError: not all were accepted.
        """
        await self.publish_all(messages, retain=True, content_type=content_type, traces=traces)

    @abstractmethod
    async def publish_all(
        self,
        messages: Sequence[tuple[str, bytes]],
        *,
        retain: bool = False,
        content_type: str | None = None,
        traces: Sequence[str | None] = (),
    ) -> None:
        """Publish at QoS 1, all in flight together; MQTT 5 passes the ``content_type`` to subscribers.

        It also passes the place of each message in a trace, as the user property ``traceparent``. ``traces`` is empty,
        or has one for each message.

        Raises:
            PublishRefusedError: the broker (MQTT 5) refused its ``topics``, and accepted all others.
            LinkError: not all were accepted.
        """

    @abstractmethod
    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1.

        Raises:
            SubscriptionRefusedError: the broker refused one.
            LinkError: the connection is gone.
        """

    @abstractmethod
    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe.

        Raises:
            LinkError: the connection is gone.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Send DISCONNECT, so that the broker drops the last will; return when it has left."""


def not_taken(topic: str) -> LinkError:
    """Return the error for a message that the broker did not answer."""
    return LinkError(f"The broker did not take a message on {topic} within {ANSWER_SECONDS:g} s, or went away.")
