"""Operations on many devices at once: how they are, and a reset of up to a thousand."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from gateway import fleet_model, lifecycle, model
from gateway.errors import GatewayError, NotFoundError
from gateway.http.devices import TAG
from gateway.http.operation import READ, WRITE, Answer, AnyOperation, Call, Operation, ReplayError
from gateway.model import CommandType
from gateway.store import Tx, View, commands, outbox
from gateway.store import devices as sql

log = structlog.get_logger()

RESET: Final = CommandType.FACTORY_RESET
ABREAST: Final = 50
"""How many resets of one call are handed to the writer at a time, so that other requests come in between."""

_UNFORESEEN: Final = "The gateway failed at this device, and left it as it was. Its log has the reason: report that."


async def get_device_stats(call: Call, _: model.Empty) -> Answer:
    """``GET /v1/devices/stats``."""
    return Answer(await call.services.store.read(lambda view: sql.count(view, call.project_id)))


async def bulk_reset(call: Call, body: fleet_model.BulkReset) -> Answer:
    """``POST /v1/devices/bulk/reset``: each device in a transaction of its own."""
    wanted = list(dict.fromkeys(body.device_ids))
    if body.dry_run:
        outcomes = await call.services.store.read(lambda view: [_would(view, call, each) for each in wanted])
    else:
        outcomes = []
        for start in range(0, len(wanted), ABREAST):
            some = wanted[start : start + ABREAST]
            outcomes += await asyncio.gather(*(_reset_one(call, each) for each in some))
        log.info("fleet.reset", devices=len(wanted), reset=sum(each.outcome == "reset" for each in outcomes))
    return await call.commit(lambda _: Answer(fleet_model.BulkOutcomes(data=outcomes)))


def _would(view: View, call: Call, device_id: str) -> fleet_model.BulkOutcome:
    try:
        pending = _is_pending(view, call, device_id)
    except NotFoundError as error:
        return _nothing_done(device_id, error)
    return _outcome(device_id, "already_pending" if pending else "would_reset")


async def _reset_one(call: Call, device_id: str) -> fleet_model.BulkOutcome:
    try:
        return await call.part(device_id, fleet_model.BulkOutcome, lambda tx: _reset(tx, call, device_id))
    except GatewayError as error:
        return _nothing_done(device_id, error)
    except ReplayError:
        raise
    except Exception:  # one device that nobody foresaw must not hold up the others
        log.exception("fleet.device_not_reset", device_id=device_id)
        return _nothing_done(device_id, GatewayError(_UNFORESEEN))


def _reset(tx: Tx, call: Call, device_id: str) -> fleet_model.BulkOutcome:
    if _is_pending(tx, call, device_id):
        return _outcome(device_id, "already_pending")
    lifecycle.reset(tx, call.project_id, device_id, call.actor, not_before=outbox.next_turn(tx))
    return _outcome(device_id, "reset")


def _is_pending(view: View, call: Call, device_id: str) -> bool:
    device = lifecycle.require(view, call.project_id, device_id)
    return commands.open_of_type(view, device["pk"], RESET) is not None


def _nothing_done(device_id: str, error: GatewayError) -> fleet_model.BulkOutcome:
    outcome = "not_found" if isinstance(error, NotFoundError) else "failed"
    return _outcome(device_id, outcome, fleet_model.BulkError(code=error.code, message=error.message))


def _outcome(device_id: str, outcome: str, error: fleet_model.BulkError | None = None) -> fleet_model.BulkOutcome:
    return fleet_model.BulkOutcome.model_validate({"id": device_id, "outcome": outcome, "error": error})


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices/stats",
        summary="Count the devices",
        description="How many devices of the project there are, and in what state. Deleted ones do not count.",
        tag=TAG,
        access=READ,
        takes=model.Empty,
        handler=get_device_stats,
        answers={200: fleet_model.DeviceStats},
    ),
    Operation(
        method="POST",
        path="/v1/devices/bulk/reset",
        summary="Reset many devices to factory settings",
        description="As the reset of a single device, each in a transaction of its own: what fails for one holds up no "
        "other, and its `outcome` says so. All are unbound when this is answered; the commands reach the broker at a "
        "steady pace (setting `bulk_reset_per_second`, 50), over restarts too. Send it with `dry_run` first.",
        tag=TAG,
        access=WRITE,
        takes=fleet_model.BulkReset,
        handler=bulk_reset,
        answers={200: fleet_model.BulkOutcomes},
    ),
)
