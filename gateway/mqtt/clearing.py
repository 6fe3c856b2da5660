"""Removal of retained messages on topics that must not hold any: they would arrive again at every connect.

A heartbeat that was sent retained is refused, an acknowledgement is accepted. Neither may stay at the broker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from gateway.domain.messages import Message
from gateway.mqtt.session import PublishRefusedError, Session

log = structlog.get_logger()

NEWS: Final = ("/heartbeat", "/ack")
"""Last levels of the topics on which nothing may be retained."""


class Clearing:
    """Checks each message. :meth:`take` returns what was found, :meth:`clear` clears it."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._on_its_way: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin a new connection: what was on its way on the one before does not arrive."""
        self._found.clear()
        self._on_its_way.clear()

    def sees(self, message: Message) -> bool:
        """Note a message that may not be retained. Return whether it is the empty message of our own clearing."""
        topic, payload, retain = message.topic, message.payload, message.retain
        if (payload and not retain) or not topic.endswith(NEWS):
            return False
        if payload:
            self._found[topic] = None
        elif self._on_its_way[topic]:
            self._on_its_way[topic] -= 1
            return True
        return False

    def take(self) -> list[str]:
        """Return the topics that were found since the last call."""
        found, self._found = list(self._found), {}
        return found

    async def clear(self, session: Session, topics: Sequence[str]) -> None:
        """Clear these topics.

        Raises:
            LinkError: the connection is gone.
        """
        if not topics:
            return
        self._on_its_way.update(topics)
        try:
            await session.publish_retained([(topic, b"") for topic in topics])
        except PublishRefusedError as error:  # it stays there, and is refused at each connect
            log.warning("ingest.retained_not_cleared", topics=list(error.topics)[:3], reason=str(error))
        else:
            log.info("ingest.retained_cleared", topics=topics[:3], count=len(topics))
