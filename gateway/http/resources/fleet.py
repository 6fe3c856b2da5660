"""Operations on many devices at once: statistics, bulk reset, bulk cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import structlog
from pydantic import BaseModel

from gateway.core.command_types import CommandType
from gateway.domain import commands, devices, job_creation, jobs, resets
from gateway.domain.job_work import INTERNAL_ERROR
from gateway.errors import ConflictError, GatewayError, NotFoundError
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import TAG
from gateway.http.responses import ApiResponse
from gateway.http.unit_of_work import ReplayError
from gateway.models.bulk import (
    BulkCancel,
    BulkCancelOutcome,
    BulkCancelOutcomes,
    BulkError,
    BulkOutcome,
    BulkOutcomes,
    BulkReset,
)
from gateway.models.devices import CountDevices, DeviceStats
from gateway.models.jobs import Outcome, SkipReason
from gateway.models.resets import ResetDevice
from gateway.models.states import CommandStatus
from gateway.store import Tx, View, command_sql, device_stats, job_target_sql, outbox_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.job_target_sql import TargetRecord

log = structlog.get_logger()

OutcomeT = TypeVar("OutcomeT", BulkOutcome, BulkCancelOutcome)

RESET: Final = CommandType.FACTORY_RESET
ABREAST: Final = 50
"""Devices of one call that are written at a time, so that other requests come in between."""

_UNFORESEEN: Final = "The gateway failed at this device, and left it as it was. Its log has the reason: report that."


async def get_device_stats(call: RequestContext, query: CountDevices) -> ApiResponse:
    """``GET /v1/devices/stats``."""
    return ApiResponse(await call.work.scan(lambda view: device_stats.count(view, call.project_id, query.tag)))


async def bulk_reset(call: RequestContext, body: BulkReset) -> ApiResponse:
    """``POST /v1/devices/bulk/reset``: a job whose targets get their turns at once, each in its own transaction."""
    asked = ResetDevice(reason=body.reason, recordings=body.recordings)
    would, job = partial(_would_reset, asked=asked), BulkJob(id="", positions={})
    if not body.dry_run:
        job = await call.work.step("job", BulkJob, lambda tx: _bulk_job(tx, call, body, asked))
    outcomes = await _each(call, body, Verb("reset", BulkOutcome, would, partial(_reset, asked=asked, job=job)))
    return await call.work.commit(lambda tx: _bulk_reset_done(tx, job, outcomes))


_SKIPPED_AT: Final = {"reset_pending": SkipReason.ALREADY_PENDING, "device_already_bound": SkipReason.BOUND_ANEW}
"""Why the job skips a device, by the error that the request answers for it."""


class BulkJob(BaseModel):
    """The job of a bulk reset: its id, and the position of each device among its targets."""

    id: str
    positions: dict[str, int]


def _bulk_job(tx: Tx, call: RequestContext, body: BulkReset, asked: ResetDevice) -> BulkJob:
    wanted = list(dict.fromkeys(body.device_ids))
    job = job_creation.create_for_bulk_reset(tx, call.project_id, call.actor, wanted, asked)
    return BulkJob(id=job.id, positions={device_id: position for position, device_id in enumerate(wanted)})


def _bulk_reset_done(tx: Tx, job: BulkJob, outcomes: list[BulkOutcome]) -> ApiResponse:
    """Give each target that nothing was done to its outcome in the job, and return the answer."""
    for each in outcomes:
        if each.outcome == "failed":
            reason = _SKIPPED_AT.get("" if each.error is None else each.error.code)
            outcome = Outcome.FAILED if reason is None else Outcome.SKIPPED
            _move(tx, job, each.id, outcome, reason=reason or INTERNAL_ERROR)
    return ApiResponse(BulkOutcomes(data=outcomes))


def _move(
    tx: Tx, job: BulkJob, device_id: str, outcome: Outcome, *, reason: str | None = None, command_id: str | None = None
) -> None:
    target = job_target_sql.find(tx, job.id, job.positions[device_id]) if job.id else None
    if target is not None and target.outcome == Outcome.WAITING:
        jobs.move(tx, target, outcome, reason=reason, command_id=command_id)


async def bulk_cancel(call: RequestContext, body: BulkCancel) -> ApiResponse:
    """``POST /v1/devices/bulk/reset/cancel``: each device in its own transaction."""
    taken_in = not body.dry_run and await _taken_in(call, body.device_ids)
    cancel = partial(_cancel, taken_in=taken_in)
    outcomes = await _each(call, body, Verb("cancelled", BulkCancelOutcome, _would_cancel, cancel))
    return await call.work.commit(lambda _: ApiResponse(BulkCancelOutcomes(data=outcomes)))


async def _taken_in(call: RequestContext, device_ids: Sequence[str]) -> bool:
    """Return whether the reports on sent resets of these devices are read; wait for that if there are any."""
    if not await call.services.store.read(lambda view: any(_was_sent(view, call, each) for each in device_ids)):
        return False  # then nothing depends on it
    return await call.services.taken_in(call.services.options.cancel_broker_wait_seconds)


def _was_sent(view: View, call: RequestContext, device_id: str) -> bool:
    try:
        command = _open_reset(view, call, device_id)
    except NotFoundError:
        return False
    return command is not None and command.sent_at is not None


@dataclass(frozen=True)
class Verb(Generic[OutcomeT]):
    """An action on each device: its outcome, how that is reported, the preview, and the action itself."""

    name: str
    kind: type[OutcomeT]
    would: Callable[[View, RequestContext, str], str]
    do: Callable[[Tx, RequestContext, str], str]

    def told(self, device_id: str, outcome: str, error: BulkError | None = None) -> OutcomeT:
        """Return an outcome as it is answered."""
        return self.kind.model_validate({"id": device_id, "outcome": outcome, "error": error})

    def nothing_done(self, device_id: str, error: GatewayError) -> OutcomeT:
        """Return the outcome that nothing was changed, with the reason."""
        outcome = "not_found" if isinstance(error, NotFoundError) else "failed"
        return self.told(device_id, outcome, BulkError(code=error.code, message=error.message))


async def _each(call: RequestContext, body: BulkReset | BulkCancel, verb: Verb[OutcomeT]) -> list[OutcomeT]:
    wanted = list(dict.fromkeys(body.device_ids))
    if body.dry_run:
        return await call.work.read(lambda view: [_would(view, call, verb, each) for each in wanted])
    outcomes: list[OutcomeT] = []
    for start in range(0, len(wanted), ABREAST):
        some = wanted[start : start + ABREAST]
        outcomes += await asyncio.gather(*(_one(call, verb, each) for each in some))
    done = sum(each.outcome == verb.name for each in outcomes)
    log.info("fleet.done", what=verb.name, devices=len(wanted), done=done)
    return outcomes


def _would(view: View, call: RequestContext, verb: Verb[OutcomeT], device_id: str) -> OutcomeT:
    try:
        return verb.told(device_id, verb.would(view, call, device_id))
    except GatewayError as error:
        return verb.nothing_done(device_id, error)


async def _one(call: RequestContext, verb: Verb[OutcomeT], device_id: str) -> OutcomeT:
    try:
        return await call.work.step(device_id, verb.kind, lambda tx: verb.told(device_id, verb.do(tx, call, device_id)))
    except GatewayError as error:
        return verb.nothing_done(device_id, error)
    except ReplayError:
        raise
    except Exception:  # an unforeseen error of one device must not hold up the others
        log.exception("fleet.device_skipped", device_id=device_id)
        return verb.nothing_done(device_id, GatewayError(_UNFORESEEN))


def _would_reset(view: View, call: RequestContext, device_id: str, *, asked: ResetDevice) -> str:
    command = _open_reset(view, call, device_id)
    if command is None:
        return "would_reset"
    resets.require_same(device_id, command, asked)
    return "already_pending"


def _reset(tx: Tx, call: RequestContext, device_id: str, *, asked: ResetDevice, job: BulkJob) -> str:
    device = devices.require(tx, call.project_id, device_id)
    target = job_target_sql.find(tx, job.id, job.positions[device_id])
    if target is not None and target.outcome != Outcome.WAITING:
        return _outcome_of(target, device_id)
    if _would_reset(tx, call, device_id, asked=asked) == "already_pending":
        _move(tx, job, device_id, Outcome.SKIPPED, reason=SkipReason.ALREADY_PENDING)
        return "already_pending"
    if target is not None and device.bound_at is not None and device.binding_generation != target.binding_generation:
        raise _bound_anew(device_id)
    devices.reset(tx, call.project_id, device_id, call.actor, asked, not_before=outbox_sql.next_turn(tx))
    command = _open_reset(tx, call, device_id)
    if command is not None:
        _move(tx, job, device_id, Outcome.QUEUED, command_id=command.id)
    return "reset"


def _outcome_of(target: TargetRecord, device_id: str) -> str:
    """Return what the worker of jobs has done to a device: the request broke off, and is repeated after a while.

    Raises:
        GatewayError: nothing was done to it.
    """
    if target.command_id is not None:
        return "reset"
    if target.reason == SkipReason.ALREADY_PENDING:
        return "already_pending"
    if target.reason == SkipReason.BOUND_ANEW:
        raise _bound_anew(device_id)
    if target.outcome == Outcome.SKIPPED:
        raise NotFoundError(f"There was no device '{device_id[:80]}' in this project when the request came first.")
    raise GatewayError(_UNFORESEEN)


def _bound_anew(device_id: str) -> ConflictError:
    return ConflictError(
        "device_already_bound",
        f"{device_id} was bound after this request came first, so it was not reset. Send a new request to reset it.",
    )


def _would_cancel(view: View, call: RequestContext, device_id: str) -> str:
    command = _open_reset(view, call, device_id)
    if command is None:
        return "none_open"
    return "would_cancel" if command.status == CommandStatus.PENDING else "too_late"


def _cancel(tx: Tx, call: RequestContext, device_id: str, *, taken_in: bool) -> str:
    outcome = _would_cancel(tx, call, device_id)
    if outcome != "would_cancel":
        return outcome
    device = devices.require(tx, call.project_id, device_id)
    command = command_sql.open_of_type(tx, device.pk, RESET)
    if command is not None:
        commands.cancel(tx, device, command.id, call.actor, taken_in=taken_in)
    return "cancelled"


def _open_reset(view: View, call: RequestContext, device_id: str) -> CommandRecord | None:
    device = devices.require(view, call.project_id, device_id)
    return command_sql.open_of_type(view, device.pk, RESET)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices/stats",
        summary="Count the devices",
        description="How many devices of the project there are, and in what state. Deleted ones do not "
        "count. With `tag` only devices with that tag do.",
        tag=TAG,
        access=READ,
        takes=CountDevices,
        handler=get_device_stats,
        answers={200: DeviceStats},
    ),
    Operation(
        method="POST",
        path="/v1/devices/bulk/reset",
        summary="Reset many devices to factory settings",
        description="Resets each device as a single reset does, in a separate transaction. A failure of one device "
        "does not hold up the others; its `outcome` says so. All are unbound when this is answered. The commands reach "
        "the broker at a steady pace (setting `bulk_reset_per_second`, 50), over restarts too. Send it with `dry_run` "
        "first.",
        tag=TAG,
        access=WRITE,
        takes=BulkReset,
        handler=bulk_reset,
        answers={200: BulkOutcomes},
    ),
    Operation(
        method="POST",
        path="/v1/devices/bulk/reset/cancel",
        summary="Take back the resets of many devices",
        description="Cancels the open factory reset of each device that has not reported it as delivered, each in a "
        "separate transaction; `outcome` says what became of each. Such a device is not wiped. Its token is revoked, "
        "and it must be bound again. Send it at once when a fleet was reset by mistake. The gateway first reads "
        "what the broker holds from before the request. Where that takes longer than `cancel_broker_wait_seconds` (5), "
        "or the broker is away, a reset that was published already is left open: its `outcome` is `failed` with "
        "`service_unavailable`. Send the request again then.",
        tag=TAG,
        access=WRITE,
        takes=BulkCancel,
        handler=bulk_cancel,
        answers={200: BulkCancelOutcomes},
    ),
)
