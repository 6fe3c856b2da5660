"""Operations on cells: list brokers and their devices, move devices, drain a broker."""

from __future__ import annotations

from typing import Final

from gateway.domain import brokers, cells
from gateway.domain.cells import Moved
from gateway.errors import ConflictError
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import bad_cursor
from gateway.http.responses import ApiResponse
from gateway.models.cells import (
    Cell,
    CellDeviceList,
    CellList,
    DrainBroker,
    ListCellDevices,
    MovedDevices,
    MoveDevices,
    MoveFromCell,
)
from gateway.models.fields import MAX_NUMBER, Empty
from gateway.store import Tx, View, broker_sql, home_sql, key_sql
from gateway.store.broker_sql import BrokerRecord

TAG: Final = "cells"


async def list_cells(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/cells``."""
    context = call.services.store.context
    found = await call.work.read(lambda view: broker_sql.brokers(view, context.clock()))
    data = [_model(each) for each in found]
    return ApiResponse(CellList(cells="home" if context.rules.assigns_homes else "any", data=data))


def _model(broker: BrokerRecord) -> Cell:
    return Cell(
        broker_id=broker.id,
        host=broker.host,
        port=broker.port,
        tls=None if broker.tls is None else bool(broker.tls),
        devices=broker.devices,
        owner=broker.owner,
        connected=not broker.is_away,
        followed=broker.left_out_at is None,
        draining=bool(broker.draining),
    )


async def list_cell_devices(call: RequestContext, query: ListCellDevices) -> ApiResponse:
    """``GET /v1/cells/{broker_id}/devices``."""
    after, instant = _after(query.cursor), call.services.store.context.clock()

    def read(view: View) -> CellDeviceList:
        broker = brokers.require(broker_sql.brokers(view, instant), call.request.path["broker_id"])
        found = home_sql.at(view, broker.pk, after, query.limit + 1, call.project_id)
        page, more = found[: query.limit], len(found) > query.limit
        following = str(page[-1].pk) if more else None
        return CellDeviceList(data=[each.id for each in page], has_more=more, next_cursor=following)

    return ApiResponse(await call.work.read(read))


def _after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal()):
        raise bad_cursor()
    return min(int(cursor), MAX_NUMBER)


async def move_devices(call: RequestContext, body: MoveDevices) -> ApiResponse:
    """``POST /v1/cells/{broker_id}/devices``: one transaction."""

    def move(tx: Tx) -> ApiResponse:
        devices = cells.named(tx, call.project_id, body.device_ids)
        return _moved(cells.move(tx, devices, call.request.path["broker_id"], call.actor), None)

    return await call.work.commit(move)


async def move_from_cell(call: RequestContext, body: MoveFromCell) -> ApiResponse:
    """``POST /v1/cells/{broker_id}/move``: one transaction, which moves a bounded number of devices."""
    source, after = call.request.path["broker_id"], _after(body.cursor)
    return await call.work.commit(
        lambda tx: _moved(*cells.move_some(tx, source, body.to, call.actor, after=after, project_id=call.project_id))
    )


def _moved(moved: Moved, following: int | None) -> ApiResponse:
    return ApiResponse(MovedDevices(**moved._asdict(), next_cursor=None if following is None else str(following)))


async def drain_broker(call: RequestContext, body: DrainBroker) -> ApiResponse:
    """``POST /v1/cells/{broker_id}/drain``."""

    def drain(tx: Tx) -> ApiResponse:
        if len(key_sql.projects(tx)) > 1:
            raise ConflictError(
                "registry_shared",
                "This registry has several projects, and a drain concerns all of them. Run 'gateway cells drain' at a "
                "gateway.",
            )
        broker_id = call.request.path["broker_id"]
        return ApiResponse(_model(cells.drain(tx, broker_id, call.actor, draining=body.draining)))

    return await call.work.commit(drain)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/cells",
        summary="List the brokers",
        description="The brokers of the registry, the address of each for devices, and how many devices have "
        "it as their home.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=list_cells,
        answers={200: CellList},
    ),
    Operation(
        method="GET",
        path="/v1/cells/{broker_id}/devices",
        summary="List the devices of a broker",
        description="The ids of the project's devices whose home it is. The page after this one starts at "
        "`next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListCellDevices,
        handler=list_cell_devices,
        answers={200: CellDeviceList},
    ),
    Operation(
        method="POST",
        path="/v1/cells/{broker_id}/devices",
        summary="Move devices to a broker",
        description="Makes this broker the home of devices. Open commands and resets go along. The old broker "
        "cuts the sessions. A device learns the address of the new one when it refreshes its token over HTTP, or at "
        "its next bind. An unknown device gets 404, and nothing is moved.",
        tag=TAG,
        access=WRITE,
        takes=MoveDevices,
        handler=move_devices,
        answers={200: MovedDevices},
        conflicts=("broker_draining", "broker_away", "no_home_brokers"),
    ),
    Operation(
        method="POST",
        path="/v1/cells/{broker_id}/move",
        summary="Move the devices of a broker",
        description="Gives the next 500 of the project's devices of this broker another home, for example since it is "
        "gone. Send it again with `next_cursor` until that is null.",
        tag=TAG,
        access=WRITE,
        takes=MoveFromCell,
        handler=move_from_cell,
        answers={200: MovedDevices},
        conflicts=("broker_away", "broker_draining", "no_home_brokers"),
    ),
    Operation(
        method="POST",
        path="/v1/cells/{broker_id}/drain",
        summary="Give a broker no new devices",
        description="No bind and no move chooses the broker any more, until `draining` is false. Devices that are "
        "there stay: move them. Where the registry has several projects, only the command line can do this.",
        tag=TAG,
        access=WRITE,
        takes=DrainBroker,
        handler=drain_broker,
        answers={200: Cell},
        conflicts=("last_broker", "registry_shared", "no_home_brokers"),
    ),
)
