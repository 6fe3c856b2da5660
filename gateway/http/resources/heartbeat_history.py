"""Operation on a device's history of heartbeats."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from gateway.core.clock import SECOND_MS, from_datetime
from gateway.http.callers import READ
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import TAG, find
from gateway.http.responses import ApiResponse
from gateway.models.fields import MAX_NUMBER
from gateway.models.heartbeats import HeartbeatList, ListHeartbeats
from gateway.store import View, heartbeat_sql


async def list_heartbeats(call: RequestContext, query: ListHeartbeats) -> ApiResponse:
    """``GET /v1/devices/{device_id}/heartbeats``."""
    rows = await call.work.read(lambda view: _history(view, call, query))
    page = rows[: query.limit]
    more = len(rows) > len(page)
    return ApiResponse(
        HeartbeatList(
            data=[heartbeat_sql.to_record(row) for row in page],
            has_more=more,
            next_cursor=f"{page[-1].received_at}.{page[-1].id}" if more else None,
        )
    )


def _history(view: View, call: RequestContext, query: ListHeartbeats) -> list[heartbeat_sql.StoredHeartbeat]:
    return heartbeat_sql.page(
        view,
        find(view, call).pk,
        heartbeat_sql.Period(_instant(query.since, 0), _instant(query.until, MAX_NUMBER)),
        after=_place(query.cursor),
        limit=query.limit + 1,
        every=None if query.every is None else query.every * SECOND_MS,
    )


def _instant(moment: datetime | None, otherwise: int) -> int:
    return otherwise if moment is None else from_datetime(moment)


def _place(cursor: str | None) -> int | None:
    return None if cursor is None else int(cursor.partition(".")[2])


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/heartbeats",
        summary="List the heartbeats of a device",
        description="What the device said of itself, newest first, for as long as the gateway keeps it (setting "
        "`heartbeat_history_days`, 30). `since` and `until` go by when it was received. The page after this one starts "
        "at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListHeartbeats,
        handler=list_heartbeats,
        answers={200: HeartbeatList},
    ),
)
