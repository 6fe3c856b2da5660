"""The list of devices: pages as JSON, and all of it as CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from gateway.core import csv_text
from gateway.errors import InvalidRequestError
from gateway.http import csv_stream, negotiation
from gateway.http.callers import READ
from gateway.http.csv_stream import CsvPart
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import MAX_ANSWER_BYTES, fitting
from gateway.http.resources.devices import TAG, bad_cursor
from gateway.http.responses import ApiResponse, Stream
from gateway.models.devices import CSV_COLUMNS, DeviceList, ListDevices
from gateway.store import View, device_list, device_sql, device_totals
from gateway.store.device_list import ListedDevice

T = TypeVar("T")

MAX_PAGE_BYTES: Final = 2 * MAX_ANSWER_BYTES
"""Maximum size of a page of devices: a thousand ordinary ones, or a hundred of the largest."""
JSON: Final = "application/json"


async def list_devices(call: RequestContext, query: ListDevices) -> ApiResponse | Stream:
    """``GET /v1/devices``: the page is read and encoded in a reader's thread."""
    media_type = negotiation.choose(call.request.headers.get(negotiation.ACCEPT), (JSON, csv_text.MEDIA_TYPE))
    if query.cursor is not None and query.offset:
        raise InvalidRequestError(
            "cursor: cannot be combined with 'offset', since both say where the page begins. Leave one of them out.",
            details={"field": "cursor"},
        )
    if media_type == JSON:
        page = await _read(call, query, lambda view: _page(view, call.project_id, query))
        return ApiResponse(page, headers=negotiation.VARY)
    is_whole = "limit" not in query.model_fields_set
    some = query.model_copy(update={"total": False, **({"limit": csv_stream.ROWS} if is_whole else {})})

    async def read_on(cursor: str) -> CsvPart[str]:
        return await read(some.model_copy(update={"cursor": cursor, "offset": 0}))

    async def read(query: ListDevices) -> CsvPart[str]:
        return await _read(call, query, partial(_some_csv, call=call, query=query, is_whole=is_whole))

    return csv_stream.stream("devices", CSV_COLUMNS, await read(some), read_on)


async def _read(call: RequestContext, query: ListDevices, read: Callable[[View], T]) -> T:
    """Read in a reader's thread.

    Raises:
        InvalidRequestError: the cursor is not one of this list.
    """
    try:
        return await (call.work.scan(read) if device_list.looks_at_many(query) else call.work.read(read))
    except device_list.CursorError as error:
        raise bad_cursor() from error


def _page(view: View, project_id: str, query: ListDevices) -> bytes:
    rows = device_list.page(view, project_id, query)
    shown, more = fitting(rows, query.limit, lambda listed: device_sql.to_model(listed.device), MAX_PAGE_BYTES)
    total = device_totals.total(view, project_id, query) if query.total else None
    answer = DeviceList(
        data=shown,
        has_more=more,
        next_cursor=device_list.cursor(query, rows[len(shown) - 1]) if more else None,
        total=None if total is None else total.count,
        total_is_exact=None if total is None else total.exact,
    )
    return answer.model_dump_json(exclude=set() if query.total else {"total", "total_is_exact"}).encode()


def _some_csv(view: View, call: RequestContext, query: ListDevices, *, is_whole: bool) -> CsvPart[str]:
    rows = device_list.page(view, call.project_id, query)
    more = is_whole and len(rows) > query.limit
    place = device_list.cursor(query, rows[query.limit - 1]) if more else None
    return csv_stream.part(map(_cells, rows[: query.limit]), place)


def _cells(listed: ListedDevice) -> list[Any]:
    """Return the cells of a device: tags with blanks between them, metadata as JSON."""
    shown = device_sql.fields(listed.device)
    metadata = shown["metadata"]
    shown["tags"] = " ".join(shown["tags"])
    shown["metadata"] = None if metadata is None else json.dumps(metadata, ensure_ascii=False)
    return [shown[name] for name in CSV_COLUMNS]


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices",
        summary="List devices",
        description="The devices of the project that are not deleted, newest first unless `sort` and `order` say "
        "otherwise. The page after this one starts at `next_cursor`; a cursor that was made under another `sort` or "
        "`order` is refused. A page of more than 100 devices ends before `limit` when it would exceed 2 MiB. "
        "`created_at` pages miss nothing that was there at the first; a device that is changed meanwhile can come "
        "twice or be missed under `updated_at` and `name`. `Accept: text/csv` gives a CSV with a header line: all "
        "devices that pass the filters, unless `limit` is given. When the connection breaks off, the file is "
        "incomplete: request it again. A cell that a spreadsheet would take for a formula begins with an apostrophe.",
        tag=TAG,
        access=READ,
        takes=ListDevices,
        handler=list_devices,
        answers={200: DeviceList},
        other_media_types=(csv_text.MEDIA_TYPE,),
    ),
)
