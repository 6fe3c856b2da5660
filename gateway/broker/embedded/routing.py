"""Routing of messages to subscribers: amqtt's tables, walked without awaiting, with every access rule checked."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

import structlog
from amqtt.broker import Broker, RetainedApplicationMessage

from gateway.broker.access_rules import Action, Role, may, may_retain
from gateway.broker.embedded.backpressure import Pressure
from gateway.broker.embedded.codec import Will
from gateway.broker.embedded.receipts import Receipt
from gateway.broker.embedded.session import BrokerLimits, ClientConnection, ClientSession

log = structlog.get_logger()

REFUSED: Final = 0x80
_HIGHEST_QOS: Final = 1
_LOGGED_TOPIC: Final = 200

Readers = list[tuple[ClientSession, int]]
"""The subscribers of a message, each with its granted QoS."""


class RoutingBroker(Broker):  # type: ignore[misc]  # amqtt ships no types
    """amqtt's broker with its own way from a publisher to the subscribers.

    amqtt puts messages into queues that are dropped when the publisher leaves. Here every subscriber has the message
    (sent, or in its backlog) before `publish` returns. If the gateway is one of them, the PUBACK follows the gateway's
    commit. amqtt's plugins are not loaded: calling them awaits, and a subscription made meanwhile breaks the delivery.
    """

    def __init__(self, prefix: str, limits: BrokerLimits) -> None:
        super().__init__({"listeners": {"default": {"type": "tcp"}}, "plugins": {}})
        self._prefix = prefix
        self.limits = limits
        self._wildcards: dict[str, str] = {}
        self._pressure = Pressure(limits.unheard)
        self._gateway_subscribes = asyncio.Event()

    def publish_from(
        self,
        session: ClientSession,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool,
        receipt: Receipt | None = None,
        readers: Readers | None = None,
    ) -> None:
        """Route a client's message to all subscribers that may receive it. Drop it if the client may not publish it.

        A message that may not be retained is routed, not kept. The gateway sees the retain flag, as MQTT 5 shows it
        under "retain as published", and refuses a heartbeat that was sent so.
        """
        if not self.allows(session, Action.PUBLISH, topic):
            self._tell_denied(session, topic)
            return
        is_kept = retain and self._may_retain(session, topic)
        if is_kept:
            self._retain(topic, payload, qos)
        own = session.is_gateway  # it would block itself, or wait for itself
        sender, receipt = (None, None) if own else (session.client_id, receipt)
        is_shown = retain and not is_kept and session.identity.role is Role.DEVICE
        for reader, granted in self._readers(topic) if readers is None else readers:
            reader.deliver(
                topic, payload, min(qos, granted), retain=is_shown and reader.is_gateway, sender=sender, receipt=receipt
            )

    def publish_will(self, session: ClientSession, will: Will) -> None:
        """Publish the will of a client that died."""
        self.publish_from(session, will.topic, will.payload, will.qos, retain=will.retain)

    async def readers_of(self, session: ClientSession, connection: ClientConnection, topic: str) -> Readers | None:
        """Return the subscribers of what a device is about to publish, once the gateway is one of them.

        Return None for other clients. After a start the gateway subscribes a moment later than devices come back, and
        what it does not get would be lost. If the connection is aborted meanwhile, there is no subscriber.
        """
        if session.identity.role is not Role.DEVICE or not self.allows(session, Action.PUBLISH, topic):
            return None
        readers = self._readers(topic)
        with contextlib.suppress(TimeoutError):
            while not _has_gateway(readers):
                self._gateway_subscribes.clear()
                async with connection.patience(None):
                    await self._gateway_subscribes.wait()
                readers = self._readers(topic)
        return readers

    def allows(self, session: ClientSession, action: Action, topic: str) -> bool:
        """Return whether the client may take this action."""
        identity = session.identity
        return may(identity.role, identity.username, action, topic, prefix=self._prefix, project=identity.project_id)

    async def subscribe(self, session: ClientSession, topic_filter: str, qos: int) -> int:
        """Subscribe a client. Return the granted QoS, at most 1, or 0x80 for a refusal."""
        self.unsubscribe(session, topic_filter)  # a second SUBSCRIBE replaces the first [MQTT-3.8.4-3]
        if session.identity.role is not Role.GATEWAY and len(session.filters) >= self.limits.subscriptions:
            return REFUSED
        if not self.limits.take_topic(topic_filter):
            return self._refuse_filter(session, topic_filter)
        code: int = await self.add_subscription((topic_filter, min(qos, _HIGHEST_QOS)), session)
        if code == REFUSED:
            return self._refuse_filter(session, topic_filter)
        session.filters.add(topic_filter)
        if session.is_gateway:
            self._gateway_subscribes.set()
        if _is_wildcard(topic_filter):
            self._wildcards[topic_filter] = _head(topic_filter)
        return code

    def _refuse_filter(self, session: ClientSession, topic_filter: str) -> int:
        log.info("broker.subscribe_denied", client_id=session.client_id, topic_filter=topic_filter[:_LOGGED_TOPIC])
        return REFUSED

    def unsubscribe(self, session: ClientSession, topic_filter: str) -> None:
        """Remove a subscription. amqtt would keep an empty entry for ever."""
        self._del_subscription(topic_filter, session)
        session.filters.discard(topic_filter)
        if not self._subscriptions.get(topic_filter, True):
            del self._subscriptions[topic_filter]
            self._wildcards.pop(topic_filter, None)

    def hand_retained(self, session: ClientSession, topic_filter: str, qos: int) -> None:
        """Send a client that has just subscribed what is retained there [MQTT-3.3.1-6].

        amqtt does this at each CONNECT too, for the filters of every client.
        """
        for kept in list(self._retained_matching(topic_filter)):
            if self.allows(session, Action.RECEIVE, kept.topic):
                session.deliver(kept.topic, kept.data, min(qos, kept.qos or 0), retain=True)

    def forget(self, session: ClientSession) -> None:
        """Drop all that is kept of a client: its subscriptions and its queue."""
        for topic_filter in list(session.filters):
            self.unsubscribe(session, topic_filter)
        self._sessions.pop(session.client_id, None)
        session.drop_all()

    def _tell_denied(self, session: ClientSession, topic: str) -> None:
        if not session.was_denied:  # once a connection: repetitions must not fill the log
            log.info("broker.publish_denied", client_id=session.client_id, topic=topic[:_LOGGED_TOPIC])
        session.was_denied = True

    def _retain(self, topic: str, payload: bytes, qos: int) -> None:
        if not payload:
            self._retained_messages.pop(topic, None)  # [MQTT-3.3.1-10]
        elif topic in self._retained_messages or len(self._retained_messages) < self.limits.retained:
            self._retained_messages[topic] = RetainedApplicationMessage(None, topic, payload, qos)
        else:
            log.error("broker.retained_full", topic=topic, retained=len(self._retained_messages))

    def _readers(self, topic: str) -> Readers:
        """Return each subscriber once, with the best QoS of its matching subscriptions [MQTT-3.3.5-1]."""
        best: dict[str, tuple[ClientSession, int]] = {}
        for topic_filter in self._filters_matching(topic):
            for session, qos in self._subscriptions.get(topic_filter, ()):
                known = best.get(session.client_id)
                best[session.client_id] = (session, max(qos, known[1] if known else qos))
        return [one for one in best.values() if self.allows(one[0], Action.RECEIVE, topic)]

    def _filters_matching(self, topic: str) -> Iterator[str]:
        """Yield the topic itself and the wildcards that match it.

        Heads are compared first: amqtt's full match is slow.
        """
        yield topic
        for topic_filter, head in self._wildcards.items():
            if topic.startswith(head) and self._matches(topic, topic_filter):
                yield topic_filter

    def _retained_matching(self, topic_filter: str) -> Iterator[Any]:
        if not _is_wildcard(topic_filter):
            return (kept for kept in (self._retained_messages.get(topic_filter),) if kept)
        return (kept for topic, kept in self._retained_messages.items() if self._matches(topic, topic_filter))

    def _may_retain(self, session: ClientSession, topic: str) -> bool:
        return may_retain(session.identity.role, session.identity.username, topic, prefix=self._prefix)

    async def _topic_filtering(self, session: ClientSession, topic: str, action: str) -> bool:
        """Return the access rule's decision to amqtt's `add_subscription`, which would ask its plugins in tasks."""
        return self.allows(session, Action(action), topic)


def _has_gateway(readers: Readers) -> bool:
    return any(reader.is_gateway for reader, _ in readers)


def _is_wildcard(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def _head(topic_filter: str) -> str:
    """Return what each matching topic begins with; `a/#` matches `a` too [MQTT 4.7.1.2]."""
    return topic_filter.partition("#")[0].partition("+")[0].rstrip("/")
