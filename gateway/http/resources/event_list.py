"""Operations on the audit trail of a project: the list, as JSON and as CSV, and who is in it (contract, section 5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from gateway.core import csv_text
from gateway.http import negotiation
from gateway.http.callers import READ
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting, require_forwards
from gateway.http.resources.devices import bad_cursor
from gateway.http.responses import ApiResponse, Stream
from gateway.models.events import ActorList, EventList, ListProjectEvents
from gateway.models.fields import Empty
from gateway.store import View, event_list, event_sql

T = TypeVar("T")

TAG: Final = "events"
JSON: Final = "application/json"
_CSV_PAGE: Final = 200
"""Events that a CSV reads at a time."""


async def list_events(call: RequestContext, query: ListProjectEvents) -> ApiResponse | Stream:
    """``GET /v1/events``."""
    media_type = negotiation.choose(call.request.headers.get(negotiation.ACCEPT), (JSON, csv_text.MEDIA_TYPE))
    require_forwards(query.since, query.until, "event")
    if media_type == JSON:
        return await _page(call, query)
    first = await _read(call, query, lambda view: _lines(view, call, query, _before(view, call, query)))
    headers = {"Content-Disposition": 'attachment; filename="events.csv"', **negotiation.VARY}
    return Stream(_csv(call, query, first), media_type, headers, is_finite=True)


async def _page(call: RequestContext, query: ListProjectEvents) -> ApiResponse:
    def rows(view: View) -> list[event_sql.EventRecord]:
        before = _before(view, call, query)
        return event_list.page_of_project(view, call.project_id, query, before, query.page_size + 1)

    shown, more = fitting(await _read(call, query, rows), query.page_size, event_sql.to_model)
    answer = EventList(data=shown, has_more=more, next_cursor=shown[-1].id if more else None)
    return ApiResponse(answer, headers=negotiation.VARY)


def _before(view: View, call: RequestContext, query: ListProjectEvents) -> int | None:
    """Return the ``seq`` of the cursor.

    Raises:
        InvalidRequestError: it is no event of this project.
    """
    if query.cursor is None:
        return None
    seq = event_list.seq_of(view, call.project_id, query.cursor)
    if seq is None:
        raise bad_cursor()
    return seq


async def _read(call: RequestContext, query: ListProjectEvents, read: Callable[[View], T]) -> T:
    return await (call.work.scan(read) if event_list.looks_at_many(query) else call.work.read(read))


@dataclass(frozen=True)
class _Part:
    """Some lines of a CSV; ``before`` is the ``seq`` where the next ones begin, None at the end."""

    lines: bytes
    before: int | None


def _lines(view: View, call: RequestContext, query: ListProjectEvents, before: int | None) -> _Part:
    """Read and write some lines. This runs in a reader's thread, so that other requests do not wait for it."""
    size = query.limit or _CSV_PAGE
    rows = event_list.page_of_project(view, call.project_id, query, before, size)
    lines = "".join(csv_text.line(event_list.cells(row)) for row in rows)
    return _Part(lines.encode(), rows[-1].seq if len(rows) == size and query.limit is None else None)


async def _csv(call: RequestContext, query: ListProjectEvents, part: _Part) -> AsyncGenerator[bytes, None]:
    """Yield the header and then page by page, so that a file of any length takes the memory of one page."""
    yield csv_text.line(event_list.CSV_COLUMNS).encode()
    while True:
        yield part.lines
        if part.before is None:
            return
        part = await _read(call, query, partial(_lines, call=call, query=query, before=part.before))


async def list_actors(call: RequestContext, query: Empty) -> ApiResponse:
    """``GET /v1/actors``."""
    del query
    return ApiResponse(ActorList(data=await call.work.read(partial(event_list.actors, project_id=call.project_id))))


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/events",
        summary="List events",
        description="The audit trail of the project, newest first. The page after this one starts at `next_cursor`. "
        "`actor` shows what a key, a person or a device has done. `Accept: text/csv` gives the same as CSV with a "
        "header line: all events that pass the filters, unless `limit` is given. It may be of any length. When the "
        "connection breaks off, the file is incomplete: request it again. A cell that a spreadsheet would take for a "
        "formula begins with an apostrophe.",
        tag=TAG,
        access=READ,
        takes=ListProjectEvents,
        handler=list_events,
        answers={200: EventList},
        other_media_types=(csv_text.MEDIA_TYPE,),
    ),
    Operation(
        method="GET",
        path="/v1/actors",
        summary="List actors",
        description="Who has done something in the project, besides devices: keys, people, the command line and the "
        "gateway, each with its name, the most recent first. They come from the events, as far as those are kept. "
        "Events can be filtered by each `actor`.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=list_actors,
        answers={200: ActorList},
    ),
)
