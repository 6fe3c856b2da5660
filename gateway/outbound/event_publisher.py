"""Event publisher: ``devices/{id}/events/{type}`` as CloudEvents, at least once (contract, sections 3 and 5).

The audit trail is the outbox. One number for each broker says how far it was published there; it is written once a
second while events go out. What was published since then is published again after a crash. Subscribers know an event by
its ``id``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from gateway.core.clock import to_rfc3339
from gateway.core.topics import Topics
from gateway.domain.messages import Message
from gateway.errors import StoreError
from gateway.models.mqtt import CloudEvent
from gateway.mqtt.session import PublishRefusedError, Session
from gateway.store import Store, Tx, View, account_sql, broker_sql, event_sql
from gateway.store.event_sql import EventWithDevice
from gateway.store.wakeups import Wakeups

log = structlog.get_logger()

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
BATCH: Final = 50
"""Events that are read and encoded at a time, without a turn for other tasks: about a third of a millisecond."""
GATHER_SECONDS: Final = 0.05
"""Events of the same moment are read and published together; commands, which devices wait for, go first."""
SAVE_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 30.0


class EventPublisher:
    """Publishes events over the current session, in the order of the commits."""

    name = "events"

    def __init__(self, store: Store, names: Topics, wakeups: Wakeups, *, enabled: bool = True) -> None:
        self._store = store
        self._names = names
        self._wakeups = wakeups
        self._enabled = enabled
        self._broker = store.context.broker
        self._source = f"/gateways/{store.context.rules.gateway_id}"
        self._told = 0
        self._saved = 0
        self._saved_at = 0.0

    def heard(self, message: Message) -> bool:
        """Return False: nothing is retained, so nothing is compared."""
        del message
        return False

    async def compare(self, session: Session) -> None:
        """Do nothing: nothing is retained, so nothing is compared."""

    async def run(self, session: Session) -> None:
        """Publish events until the connection is gone.

        Raises:
            LinkError: it is gone; what was not accepted is published over the next one.
        """
        await self._begin()
        try:
            while self._enabled:
                await self._tell(session)
        finally:
            await self._save()

    async def _begin(self) -> None:
        """Go on where the last connection ended. Events from a time when publishing was off are left out."""
        self._told = self._saved = await self._store.write(self._enabled_since)

    def _enabled_since(self, tx: Tx) -> int:
        if not self._enabled:
            broker_sql.forget_fact(tx, self._broker, event_sql.FEED_CURSOR)
            return 0
        known = broker_sql.fact(tx, self._broker, event_sql.FEED_CURSOR)
        told = event_sql.newest(tx) if known is None else int(known)
        broker_sql.set_fact(tx, self._broker, event_sql.FEED_CURSOR, str(told))
        return told

    async def _tell(self, session: Session) -> None:
        news = self._wakeups.news
        try:
            while await self._tell_some(session):
                pass
            await self._idle(news)
        except PublishRefusedError as error:
            log.error("events.refused", topic=error.topics[0], refused=len(error.topics), reason=error.reason)  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(REFUSED_SECONDS)
        except StoreError as error:
            log.error("events.not_read", reason=error.message)  # noqa: TRY400 - no bug of ours
            await asyncio.sleep(SAVE_SECONDS)

    async def _tell_some(self, session: Session) -> bool:
        """Publish the next batch; return whether there was one."""
        told = await self._store.read(self._unread)
        if told:
            messages = [each for _, some in told for each in some]
            if messages:
                await session.publish_all(messages, content_type=CONTENT_TYPE)
            self._told = told[-1][0]
        if asyncio.get_running_loop().time() - self._saved_at > SAVE_SECONDS:
            await self._save()
        return bool(told)

    def _unread(self, view: View) -> list[tuple[int, list[tuple[str, bytes]]]]:
        """Return unpublished events with their numbers, encoded in the reader's thread.

        An event without a device is not published: no topic belongs to a project or to the registry.
        """
        events = event_sql.after(view, self._told, BATCH)
        read = account_sql.projects(view) if events else frozenset()
        return [(event.seq, self._messages(event, read)) for event in events]

    async def _idle(self, news: asyncio.Event) -> None:
        """Wait for events. Write down the progress when none come for a second."""
        for seconds in (SAVE_SECONDS, _LOOK_SECONDS):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await news.wait()
                await asyncio.sleep(GATHER_SECONDS)
                return
            await self._save()

    async def _save(self) -> None:
        if self._told != self._saved:
            told = self._told
            save = partial(broker_sql.set_fact, pk=self._broker, key=event_sql.FEED_CURSOR, value=str(told))
            await self._store.write(save, urgent=False)
            self._saved, self._saved_at = told, asyncio.get_running_loop().time()

    def _messages(self, event: EventWithDevice, read: Container[str]) -> list[tuple[str, bytes]]:
        """Return the message for accounts of all projects, and one where accounts read its project alone."""
        device_id = event.device_id
        if device_id is None:
            return []
        payload = cloud_event(event, device_id, self._source).model_dump_json().encode()
        topics = [self._names.event(device_id, event.type)]
        if event.project_id in read:
            topics.append(self._names.project_event(event.project_id, device_id, event.type))
        return [(topic, payload) for topic in topics]


def cloud_event(event: EventWithDevice, device_id: str, source: str) -> CloudEvent:
    """Return an event of this device as CloudEvents 1.0 (structured mode, JSON)."""
    return CloudEvent(
        id=event.id,
        source=source,
        type=event.type,
        subject=device_id,
        time=to_rfc3339(event.created_at),
        projectid=event.project_id,
        data=json.loads(event.data),
    )
