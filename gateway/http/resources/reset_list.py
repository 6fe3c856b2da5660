"""Operations on lists of factory resets: of a device, of the project, and their numbers (contract, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from gateway.core import csv_text
from gateway.errors import NotFoundError
from gateway.http import csv_stream, negotiation
from gateway.http.callers import READ
from gateway.http.csv_stream import CsvPart
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting, require_forwards
from gateway.http.resources.devices import bad_cursor
from gateway.http.responses import ApiResponse, Stream
from gateway.models.reset_list import (
    CSV_COLUMNS,
    ListProjectResets,
    ListResets,
    ResetList,
    ResetSummary,
    SummarizeResets,
)
from gateway.store import View, device_sql, reset_list
from gateway.store.reset_list import CursorError, ListedReset, page

T = TypeVar("T")

TAG: Final = "resets"
JSON: Final = "application/json"
_FORMATS: Final = (
    " `Accept: text/csv` gives the same as CSV with a header line: all resets that pass the filters, unless `limit` is "
    "given. It may be of any length. When the connection breaks off, the file is incomplete: request it again. A cell "
    "that a spreadsheet would take for a formula begins with an apostrophe."
)


async def list_device_resets(call: RequestContext, query: ListResets) -> ApiResponse | Stream:
    """``GET /v1/devices/{device_id}/resets``, also of a deleted device."""
    return await _list(call, query, await call.work.read(lambda view: _device_pk(view, call, call.device_id)))


async def list_resets(call: RequestContext, query: ListProjectResets) -> ApiResponse | Stream:
    """``GET /v1/resets``."""
    if query.device_id is None:
        return await _list(call, query, None)
    wanted = query.device_id
    return await _list(call, query, await call.work.read(lambda view: _device_pk(view, call, wanted, unknown=-1)))


async def summarize_resets(call: RequestContext, query: SummarizeResets) -> ApiResponse:
    """``GET /v1/resets/summary``."""
    require_forwards(query.since, query.until, "reset")
    now = call.services.store.context.clock()
    return ApiResponse(await call.work.scan(lambda view: reset_list.summary(view, call.project_id, query, now)))


def _device_pk(view: View, call: RequestContext, device_id: str, *, unknown: int | None = None) -> int:
    """Return the row number of a device. Resets outlive it, so it may be deleted."""
    device = device_sql.any_of_project(view, call.project_id, device_id)
    if device is not None:
        return device.pk
    if unknown is not None:
        return unknown
    raise NotFoundError(f"There is no device '{device_id[:80]}' in this project, not even a deleted one. Check the id.")


async def _list(call: RequestContext, query: ListResets, device_pk: int | None) -> ApiResponse | Stream:
    media_type = negotiation.choose(call.request.headers.get(negotiation.ACCEPT), (JSON, csv_text.MEDIA_TYPE))
    require_forwards(query.since, query.until, "reset")
    if media_type == JSON:
        return _page(call, query, await _read(call, query, lambda view: _rows(view, call, query, device_pk)))

    async def read(cursor: str | None) -> CsvPart[str]:
        some = query.model_copy(update={"cursor": cursor})
        return await _read(call, some, lambda view: _some_csv(view, call, some, device_pk))

    return csv_stream.stream("resets", CSV_COLUMNS, await read(query.cursor), read)


def _rows(view: View, call: RequestContext, query: ListResets, device_pk: int | None) -> list[ListedReset]:
    return page(view, call.project_id, query, query.page_size, device_pk)


def _page(call: RequestContext, query: ListResets, rows: list[ListedReset]) -> ApiResponse:
    now = call.services.store.context.clock()
    shown, more = fitting(rows, query.page_size, lambda row: reset_list.to_model(row, now))
    answer = ResetList(data=shown, has_more=more, next_cursor=shown[-1].command_id if more else None)
    return ApiResponse(answer, headers=negotiation.VARY)


async def _read(call: RequestContext, query: ListResets, read: Callable[[View], T]) -> T:
    """Read in a reader's thread.

    Raises:
        InvalidRequestError: the cursor is not one of this list.
    """
    try:
        return await (call.work.scan(read) if reset_list.looks_at_many(query) else call.work.read(read))
    except CursorError as error:
        raise bad_cursor() from error


def _some_csv(view: View, call: RequestContext, query: ListResets, device_pk: int | None) -> CsvPart[str]:
    size, now = query.limit or csv_stream.ROWS, call.services.store.context.clock()
    rows = page(view, call.project_id, query, size, device_pk)
    place = rows[size - 1].command_id if len(rows) > size and query.limit is None else None
    return csv_stream.part((reset_list.facts(row, now).values() for row in rows[:size]), place)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/resets",
        summary="List resets",
        description="The factory resets of the project, newest first, with who asked for each, why, and how it ended. "
        "An open one has its age. The page after this one starts at `next_cursor`." + _FORMATS,
        tag=TAG,
        access=READ,
        takes=ListProjectResets,
        handler=list_resets,
        answers={200: ResetList},
        other_media_types=(csv_text.MEDIA_TYPE,),
    ),
    Operation(
        method="GET",
        path="/v1/resets/summary",
        summary="Count resets",
        description="How many resets are open, by age, and how many ended within the period, by outcome.",
        tag=TAG,
        access=READ,
        takes=SummarizeResets,
        handler=summarize_resets,
        answers={200: ResetSummary},
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/resets",
        summary="List the resets of a device",
        description="The same for one device, which may be deleted." + _FORMATS,
        tag=TAG,
        access=READ,
        takes=ListResets,
        handler=list_device_resets,
        answers={200: ResetList},
        other_media_types=(csv_text.MEDIA_TYPE,),
    ),
)
