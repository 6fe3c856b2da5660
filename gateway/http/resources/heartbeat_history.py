"""Operation on a device's history of heartbeats."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from gateway.core.clock import SECOND_MS, from_datetime
from gateway.http.callers import READ
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import TAG, find
from gateway.http.responses import ApiResponse
from gateway.models.fields import MAX_NUMBER
from gateway.models.heartbeats import HeartbeatList, HeartbeatRecord, ListHeartbeats
from gateway.store import View, heartbeat_sql, thinned_sql
from gateway.store.thinned_sql import Place


async def list_heartbeats(call: RequestContext, query: ListHeartbeats) -> ApiResponse:
    """``GET /v1/devices/{device_id}/heartbeats``."""
    shown = await call.work.read(lambda view: _history(view, call, query))
    page = shown[: query.limit]
    more = len(shown) > len(page)
    return ApiResponse(
        HeartbeatList(
            data=[each.record for each in page],
            has_more=more,
            next_cursor=f"{page[-1].place.received_at}.{page[-1].place.id}" if more else None,
        )
    )


class _Shown(NamedTuple):
    """A heartbeat or a thinned hour, and the place where the list goes on after it."""

    record: HeartbeatRecord
    place: Place


def _history(view: View, call: RequestContext, query: ListHeartbeats) -> list[_Shown]:
    """Return a page and one more: heartbeats, and after the oldest of them the hours of what was thinned."""
    pk, wanted = find(view, call).pk, query.limit + 1
    window = heartbeat_sql.Period(_instant(query.since, 0), _instant(query.until, MAX_NUMBER))
    every = None if query.every is None else query.every * SECOND_MS
    after = _place(query.cursor)
    beats = heartbeat_sql.page(view, pk, window, after=None if after is None else after.id, limit=wanted, every=every)
    shown = [_Shown(heartbeat_sql.to_record(row), Place(row.received_at, row.id)) for row in beats]
    hours = thinned_sql.page(
        view, pk, window, after=shown[-1].place if shown else after, limit=wanted - len(shown), every=every
    )
    return [*shown, *(_Shown(thinned_sql.to_record(row), Place(row.received_at, row.first_id)) for row in hours)]


def _instant(moment: datetime | None, otherwise: int) -> int:
    return otherwise if moment is None else from_datetime(moment)


def _place(cursor: str | None) -> Place | None:
    return None if cursor is None else Place(*map(int, cursor.split(".")))


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/heartbeats",
        summary="List the heartbeats of a device",
        description="What the device said of itself, newest first, for as long as the gateway keeps it (setting "
        "`heartbeat_history_days`, 30). Those older than `heartbeat_raw_days` are thinned to one for each hour, with "
        "`hour`. `since` and `until` go by when it was received. The page after this one starts "
        "at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListHeartbeats,
        handler=list_heartbeats,
        answers={200: HeartbeatList},
    ),
)
