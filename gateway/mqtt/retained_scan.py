"""Asks the broker which retained messages it holds on some topics.

Some brokers (RabbitMQ) hand no retained messages to a wildcard. So the gateway asks, by a wildcard too, for a topic on
which it knows there is one, its own status: where that does not come back, or the answer does not come to an end in
time, what is missing in it means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
    """The gateway's own status: a retained message that the broker is sure to hold, and where it lies."""

    topic_filter: str
    topic: str
    says: Callable[[], bytes]

    @property
    def payload(self) -> bytes:
        """What lies there, as it is to be said now."""
        return self.says()

    @classmethod
    def own_status(cls, names: Topics, gateway_id: str, says: Callable[[], bytes]) -> ScanMarker:
        """The birth of this gateway."""
        return cls(names.gateway_status("+"), names.gateway_status(gateway_id), says)


class RetainedScan:
    """Counts what lies on ``filters``; ``keep`` takes each retained message while :meth:`take` asks for them.

    Only one may be taken at a time: they share the mark.
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
        """Whether the broker sent this because it was asked; if it is being asked now, take note of it."""
        counted = any(matches(each, message.topic) for each in self._counted)
        if self._count is not None and message.topic == self._mark.topic:
            self._count.mark(retained_copy=message.retain)
        elif self._count is not None and counted and message.retain:
            self._keep(message.topic, message.payload)
            self._count.more.set()
        return counted or matches(self._mark.topic_filter, message.topic)

    async def run(self, session: Session) -> bool:
        """Ask; whether what did not come is not there either. The mark must be on the broker already.

        Raises:
            SubscriptionRefusedError: the broker does not let the gateway look there.
            LinkError: the connection is gone.
        """
        count = self._count = _Count()
        try:
            await session.subscribe(self._filters)
            # Once more, now as a mark in the stream: what the broker had to tell came before it.
            await session.publish(self._mark.topic, self._mark.payload, retain=True)
            told = await count.complete(self._longest)
            await session.unsubscribe(self._filters)
        finally:
            self._count = None
        return told


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter without ``#`` holds this topic."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(levels) and all(one in ("+", level) for one, level in zip(wanted, levels, strict=True))


class _Count:
    """How far the broker's answer is."""

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
        """Wait for the mark, and then until nothing more comes: not every broker keeps the order."""
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
