"""Scan of the retained messages that a broker holds on some topics.

Some brokers (RabbitMQ) send no retained messages to a wildcard. So the gateway also subscribes, by a wildcard, to a
topic that surely holds one: its own status. If that does not arrive, or the answer does not end in time, what is
missing in the answer means nothing.

A broker also bounds what it queues for one client: Mosquitto returned 60,568 of 98,000 states to a wildcard. What a
wildcard did not return is therefore asked for by its name, some hundred topics at a time (:meth:`RetainedScan.ask`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.core.topics import Topics
from gateway.domain.messages import Message
from gateway.mqtt.session import Session

QUIET_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 4.0
"""Until the answer begins."""
WHOLE_SECONDS: Final = 30.0
"""For the whole answer: 45,000 messages, which Mosquitto queues by default, take some seconds."""
STALLED_SECONDS: Final = 5.0
"""After such a pause nothing more is expected: a queue that was full has dropped the marker, too."""
ASKED_AT_ONCE: Final = 500
"""Topics in one SUBSCRIBE: 40 KB, or 100 KB with a long prefix. ``mosquitto.conf`` accepts packets up to 128 KiB."""


@dataclass(frozen=True)
class ScanMarker:
    """The gateway's own status: a retained message that the broker surely holds, and its topic."""

    topic_filter: str
    topic: str
    says: Callable[[], Awaitable[bytes]]
    """Returns its present payload."""

    @classmethod
    def own_status(cls, names: Topics, gateway_id: str, says: Callable[[], Awaitable[bytes]]) -> ScanMarker:
        """Return the marker made of this gateway's online message."""
        return cls(names.gateway_status("+"), names.gateway_status(gateway_id), says)


class ScanResult(NamedTuple):
    """How a scan ended.

    ``told``: the broker returns retained messages to such a subscription. ``ended``: its answer came to an end in time.
    """

    told: bool
    ended: bool

    @property
    def is_complete(self) -> bool:
        """Return whether what did not arrive does not exist, or exceeds what the broker queues for a client."""
        return self.told and self.ended


class RetainedScan:
    """Counts what lies on ``filters``; ``keep`` receives each retained message during :meth:`run`.

    Only one scan may run at a time: they share the marker.
    """

    def __init__(
        self,
        mark: ScanMarker,
        filters: Sequence[str],
        keep: Callable[[str, bytes], None],
        longest: float = LONGEST_SECONDS,
    ) -> None:
        self._mark = mark
        self._filters = (mark.topic_filter, *filters)  # the marker first: it must not exceed the broker's queue
        self._counted = tuple(filters)
        self._keep = keep
        self._longest = longest
        self._count: _Count | None = None
        self._subscribed: Sequence[str] = ()

    def heard(self, message: Message) -> bool:
        """Return whether the broker sent this because of a scan, and record it during a scan."""
        counted = any(matches(each, message.topic) for each in self._counted)
        if self._count is not None and message.topic == self._mark.topic:
            self._count.mark(retained_copy=message.retain)
        elif self._count is not None and counted and message.retain:
            self._keep(message.topic, message.payload)
            self._count.found(message.topic)
        return counted or matches(self._mark.topic_filter, message.topic)

    async def run(self, session: Session) -> ScanResult:
        """Scan. The marker must be on the broker already.

        Where the broker holds more than it queues for a client, the result is complete all the same: ask for the rest.

        Raises:
            SubscriptionRefusedError: the broker refuses the subscription.
            LinkError: the connection is gone.
        """
        return await self._scan(session, self._filters, _Count())

    async def ask(self, session: Session, names: Sequence[str]) -> bool:
        """Scan these topics, at most ASKED_AT_ONCE. Return whether what did not arrive does not exist.

        Raises:
            SubscriptionRefusedError: the broker refuses the subscription.
            LinkError: the connection is gone.
        """
        return (await self._scan(session, (self._mark.topic, *names), _Count(names))).is_complete

    async def _scan(self, session: Session, filters: Sequence[str], count: _Count) -> ScanResult:
        if self._subscribed:  # over an earlier connection, which was lost: the session may have kept them
            await session.unsubscribe(self._subscribed)
        self._count, self._subscribed = count, filters
        try:
            await session.subscribe(filters)
            # Once more, now as a mark in the stream: what the broker had to send came before it.
            await session.publish(self._mark.topic, await self._mark.says(), retain=True)
            result = await count.complete(self._longest)
            await session.unsubscribe(filters)
            self._subscribed = ()
        finally:
            self._count = None
        return result


def digest_of(payload: bytes) -> bytes:
    """Return sixteen bytes in place of a thousand: the payloads of a large fleet are compared at once."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a filter without ``#`` matches this topic."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(one in ("+", level) for one, level in zip(wanted, levels, strict=True))


class _Count:
    """The progress of the broker's answer: to a wildcard, or to the topics ``wanted``."""

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self._wanted = set(wanted)
        self._is_by_name = bool(self._wanted)
        self._more = asyncio.Event()
        self._has_begun = False
        self._mark_retained = False
        self._marks = 0
        self._marked = False

    def found(self, topic: str) -> None:
        self._wanted.discard(topic)
        self._has_begun = True
        self._more.set()

    def mark(self, *, retained_copy: bool) -> None:
        self._marks += 1
        self._mark_retained = self._mark_retained or retained_copy
        if not retained_copy or self._marks > 1:
            self._marked = True
            self._more.set()

    async def complete(self, longest: float) -> ScanResult:
        """Wait for the marker, and then until nothing more arrives: not every broker keeps the order.

        The answer must begin within ``longest`` seconds. An answer by name is complete with the last topic.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(max(longest, WHOLE_SECONDS)):
                while not (self._marked or self._has_all):
                    await self._next(STALLED_SECONDS if self._has_begun else longest)
                with suppress(TimeoutError):
                    while not self._has_all:
                        await self._next(QUIET_SECONDS)
                return ScanResult(self._mark_retained or self._has_all, ended=True)
        return ScanResult(self._mark_retained, ended=False)

    @property
    def _has_all(self) -> bool:
        return self._is_by_name and not self._wanted

    async def _next(self, seconds: float) -> None:
        self._more.clear()
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 may drop a cancellation
            await self._more.wait()
