"""Takes away what is retained on topics where devices tell news: it would come again at every connect.

A heartbeat that was sent retained is refused, an acknowledgement is taken; neither may stay at the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from gateway.domain.messages import Message
from gateway.mqtt.session import PublishRefusedError, Session

log = structlog.get_logger()

NEWS: Final = ("/heartbeat", "/ack")
"""How the topics end on which nothing may be retained."""
REMEMBERED: Final = 4_096
"""Topics whose clearing is recognised when it comes back, the latest ones."""


class Clearing:
    """Looks at each message; :meth:`take` gives what was found, :meth:`clear` clears it."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}
        self._cleared: dict[str, None] = {}

    def begin(self) -> None:
        """A new connection: what was cleared on the one before does not come back on this one."""
        self._found.clear()
        self._cleared.clear()

    def sees(self, message: Message) -> bool:
        """Note it if it is retained where it may not be; whether it is the empty message of a clearing of ours.

        A broker may hand that out twice (QoS 1), so an empty message on a topic cleared here always counts as ours.
        """
        topic, payload, retain = message.topic, message.payload, message.retain
        if (payload and not retain) or not topic.endswith(NEWS):
            return False
        if payload:
            self._found[topic] = None
            return False
        return topic in self._cleared

    def take(self) -> list[str]:
        """The topics that were found since the last call."""
        found, self._found = list(self._found), {}
        return found

    async def clear(self, session: Session, topics: Sequence[str]) -> None:
        """Clear these.

        Raises:
            LinkError: the connection is gone.
        """
        if not topics:
            return
        self._cleared.update(dict.fromkeys(topics))
        for topic in list(self._cleared)[: max(0, len(self._cleared) - REMEMBERED)]:
            del self._cleared[topic]
        try:
            await session.publish_retained([(topic, b"") for topic in topics])
        except PublishRefusedError as error:  # it stays there, and is refused at each connect
            log.warning("ingest.retained_not_cleared", topics=list(error.topics)[:3], reason=str(error))
        else:
            log.info("ingest.retained_cleared", topics=topics[:3], count=len(topics))
