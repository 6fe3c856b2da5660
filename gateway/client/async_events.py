"""Calls about events of the client for asyncio. ``scripts/sync_client.py`` makes ``sync_events.py`` of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Unpack

from gateway.client.arguments import EventFilters, path
from gateway.client.async_transport import AsyncTransport
from gateway.models.events import ActorList, Event, EventList

MOST_EVENTS: Final = 100


class AsyncEventCalls(AsyncTransport):
    """Calls about the audit trail."""

    async def list_events(
        self,
        *,
        kind: str | None = None,
        device_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[EventFilters],
    ) -> EventList:
        """Return a page of the audit trail, newest first; times are RFC 3339."""
        only = {"type": kind, "device_id": device_id, **filters}
        return await self._get(EventList, path("events"), limit=limit, cursor=cursor, **only)

    async def iterate_events(
        self, *, kind: str | None = None, device_id: str | None = None, **filters: Unpack[EventFilters]
    ) -> AsyncIterator[Event]:
        """Return all events that pass the filters, page by page."""
        cursor: str | None = None
        while True:
            page = await self.list_events(kind=kind, device_id=device_id, limit=MOST_EVENTS, cursor=cursor, **filters)
            for event in page.data:
                yield event
            cursor = page.next_cursor
            if cursor is None:
                return

    async def list_device_events(
        self,
        device_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[EventFilters],
    ) -> EventList:
        """Return a page of the audit trail of a device, newest first."""
        return await self._get(EventList, path("devices", device_id, "events"), limit=limit, cursor=cursor, **filters)

    async def list_actors(self) -> ActorList:
        """Return who has done something in the project, besides devices."""
        return await self._get(ActorList, path("actors"))

    async def stream_events(
        self,
        *,
        last_event_id: str | None = None,
        kind: str | None = None,
        device_id: str | None = None,
        actor: str | None = None,
    ) -> AsyncIterator[Event]:
        """Return events as they happen, from the one after ``last_event_id``, until the connection ends."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async for line in self.lines(path("events", "stream"), headers, type=kind, device_id=device_id, actor=actor):
            field, _, value = line.partition(": ")
            if field == "data":
                yield Event.model_validate_json(value)
