"""The event stream of a project (contract, sections 2 and 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from gateway.core import ids
from gateway.errors import InvalidRequestError
from gateway.http.callers import READ
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.responses import Stream
from gateway.models.events import StreamEvents
from gateway.store import event_list, event_sql
from gateway.store.event_sql import EventRecord

TAG: Final = "events"
LAST_EVENT_ID: Final = "Last-Event-ID"
MEDIA_TYPE: Final = "text/event-stream"
_BATCH: Final = 32
_RETRY_MS: Final = 2_000


async def stream_events(call: RequestContext, query: StreamEvents) -> Stream:
    """``GET /v1/events/stream``."""
    last = _last_event_id(call, query)
    after = await _resume_after(call, last)
    return Stream(_follow(call, query, after), MEDIA_TYPE, {"X-Accel-Buffering": "no"})  # nginx would buffer them


async def _resume_after(call: RequestContext, last: str | None) -> int:
    """Return the ``seq`` after which to go on. A pruned event is located among those of all projects."""
    if last is not None:
        seq = await call.work.read(lambda view: event_list.seq_of(view, call.project_id, last))
        if seq is not None:
            return seq
        return await call.work.scan(lambda view: event_list.resume_after(view, call.project_id, last))
    return await call.work.read(lambda view: event_list.resume_after(view, call.project_id, None))


def _last_event_id(call: RequestContext, query: StreamEvents) -> str | None:
    header = call.request.headers.get(LAST_EVENT_ID)
    if not header:  # a browser that has seen no event yet may send it empty
        return query.last_event_id
    if not ids.is_id(ids.EVENT, header):
        raise InvalidRequestError(
            f"{LAST_EVENT_ID}: should be the id of an event (evt_…), the last that was received. Leave it out to begin "
            "with what happens from now on.",
            details={"field": LAST_EVENT_ID},
        )
    return header


async def _follow(call: RequestContext, query: StreamEvents, after: int) -> AsyncGenerator[bytes, None]:
    """Yield the events after the one numbered ``after`` as they are committed; a comment when none come for long."""
    services, clock = call.services, asyncio.get_running_loop().time
    yield f": events of {call.project_id}\nretry: {_RETRY_MS}\n\n".encode()
    quiet_until = clock() + services.options.stream_heartbeat_seconds
    while True:
        news = services.wakeups.news
        tail = partial(event_list.tail, project_id=call.project_id, query=query, after=after, limit=_BATCH)
        events, after = await call.work.read(tail)
        for event in events:
            yield _message(event)
            quiet_until = clock() + services.options.stream_heartbeat_seconds
        if len(events) < _BATCH and not await _rang(news, quiet_until - clock()):
            yield b": still here\n\n"
            quiet_until = clock() + services.options.stream_heartbeat_seconds


def _message(record: EventRecord) -> bytes:
    event = event_sql.to_model(record)
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


async def _rang(bell: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await bell.wait()
    except TimeoutError:
        return False


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/events/stream",
        summary="Follow events",
        description="Server-sent events, one for each event of the project: `id` is the event's id, `event` its type, "
        "`data` the event as JSON, the same as in the list. It begins with new events, or after the event in the "
        "header `Last-Event-ID` (or `last_event_id`), so that no event is missed between two connections. An event "
        "comes once per connection, in the order of the commits. The answer has no end: a comment comes every 15 s. It "
        "ends when the gateway stops, within a second when the key is revoked or expires, and when the client does not "
        "read. A key may have 10 streams open (setting `event_streams_per_key`); one more is a 429.",
        tag=TAG,
        access=READ,
        takes=StreamEvents,
        handler=stream_events,
        answers={200: None},
        media_type=MEDIA_TYPE,
        takes_headers={LAST_EVENT_ID: "The id of the last event that was received."},
    ),
)
