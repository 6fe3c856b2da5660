"""Scan of the retained messages that a broker holds on some topics.

Some brokers (RabbitMQ) send no retained messages to a wildcard. So the gateway also subscribes, by a wildcard, to a
topic that surely holds one: its own status. If that does not arrive, or the answer does not end in time, what is
missing in the answer means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gateway.core.topics import Topics
from gateway.domain.messages import Message
from gateway.mqtt.session import Session

QUIET_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 4.0


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
        self._filters = (*filters, mark.topic_filter)
        self._counted = tuple(filters)
        self._keep = keep
        self._longest = longest
        self._count: _Count | None = None

    def heard(self, message: Message) -> bool:
        """Return whether the broker sent this because of a scan, and record it during a scan."""
        counted = any(matches(each, message.topic) for each in self._counted)
        if self._count is not None and message.topic == self._mark.topic:
            self._count.mark(retained_copy=message.retain)
        elif self._count is not None and counted and message.retain:
            self._keep(message.topic, message.payload)
            self._count.more.set()
        return counted or matches(self._mark.topic_filter, message.topic)

    async def run(self, session: Session) -> bool:
        """Scan. Return whether what did not arrive does not exist. The marker must be on the broker already.

        Raises:
            SubscriptionRefusedError: the broker refuses the subscription.
            LinkError: the connection is gone.
        """
        count = self._count = _Count()
        try:
            await session.subscribe(self._filters)
            # Once more, now as a mark in the stream: what the broker had to send came before it.
            await session.publish(self._mark.topic, await self._mark.says(), retain=True)
            told = await count.complete(self._longest)
            await session.unsubscribe(self._filters)
        finally:
            self._count = None
        return told


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a filter without ``#`` matches this topic."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(one in ("+", level) for one, level in zip(wanted, levels, strict=True))


class _Count:
    """The progress of the broker's answer."""

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self._mark_retained = False
        self._marks = 0
        self._marked = asyncio.Event()

    def mark(self, *, retained_copy: bool) -> None:
        self._marks += 1
        self._mark_retained = self._mark_retained or retained_copy
        if not retained_copy or self._marks > 1:
            self._marked.set()

    async def complete(self, longest: float) -> bool:
        """Wait for the marker, and then until nothing more arrives: not every broker keeps the order."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._marked.wait()
                await self._quiet()
                return self._mark_retained
        return False

    async def _quiet(self) -> None:
        with suppress(TimeoutError):
            while True:
                self.more.clear()
                async with asyncio.timeout(QUIET_SECONDS):  # wait_for of Python 3.11 may drop a cancellation
                    await self.more.wait()
