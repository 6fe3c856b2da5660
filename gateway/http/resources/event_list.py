"""Operations on the audit trail of a project: the list, as JSON and as CSV, and who is in it (contract, section 5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from gateway.core import csv_text
from gateway.http import csv_stream, negotiation
from gateway.http.callers import READ
from gateway.http.csv_stream import CsvPart
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


async def list_events(call: RequestContext, query: ListProjectEvents) -> ApiResponse | Stream:
    """``GET /v1/events``."""
    media_type = negotiation.choose(call.request.headers.get(negotiation.ACCEPT), (JSON, csv_text.MEDIA_TYPE))
    require_forwards(query.since, query.until, "event")
    if media_type == JSON:
        return await _page(call, query)
    first = await _read(call, query, lambda view: _lines(view, call, query, _before(view, call, query)))

    async def read_on(before: int) -> CsvPart[int]:
        return await _read(call, query, partial(_lines, call=call, query=query, before=before))

    return csv_stream.stream("events", event_list.CSV_COLUMNS, first, read_on)


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


def _lines(view: View, call: RequestContext, query: ListProjectEvents, before: int | None) -> CsvPart[int]:
    size = query.limit or csv_stream.ROWS
    rows = event_list.page_of_project(view, call.project_id, query, before, size)
    place = rows[-1].seq if len(rows) == size and query.limit is None else None
    return csv_stream.part(map(event_list.cells, rows), place)


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
