"""Creation of jobs: which devices are the targets, and what would become of them (contract, section 8).

One read chooses all targets, with the generation of each. So they are those of one instant, however long it takes to
write them. They are written in short transactions while the job is ``preparing``, which no list shows; the last
transaction makes it a job. After a crash a worker deletes what was prepared (:mod:`gateway.domain.job_work`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.core import ids
from gateway.core.clock import MINUTE_MS, SECOND_MS, from_datetime, to_rfc3339
from gateway.core.command_types import CommandType
from gateway.core.redaction import redact
from gateway.domain import job_pace, jobs
from gateway.errors import ConflictError, InvalidRequestError, UnavailableError
from gateway.models.devices import ListDevices
from gateway.models.job_requests import (
    CONFIRMED_ABOVE,
    DEFAULT_TTL_SECONDS,
    MOST_TARGETS,
    CreateJob,
    JobAction,
    JobTargets,
)
from gateway.models.jobs import (
    DRY_RUN_SHOWN,
    JobPreview,
    JobPreviewDevice,
    JobPreviewWaits,
    JobStatus,
    Outcome,
    SkipReason,
)
from gateway.models.resets import ResetDevice
from gateway.models.states import Radio
from gateway.store import (
    Batch,
    Tx,
    View,
    actor_names,
    device_list,
    job_choice_sql,
    job_sql,
    job_target_sql,
    measurements,
)
from gateway.store.job_choice_sql import TargetState
from gateway.store.job_sql import PREPARING, JobRecord
from gateway.store.job_target_sql import NewTarget

RESET: Final = CommandType.FACTORY_RESET
BULK_RESET: Final = "Bulk reset"
HELD_MS: Final = MINUTE_MS
PART: Final = 500
"""Targets that are written before urgent writes are let in. A small job has so many at most."""
_AT_ONCE: Final = 5_000
"""Targets that are written in one transaction, if no urgent write waits."""
_LOOK_UP: Final = 1_000
_SECONDS_A_MINUTE: Final = MINUTE_MS // SECOND_MS


def check(body: CreateJob, now: int, per_minute: int) -> None:
    """Check what the fields of a request say together. ``per_minute`` is the pace in force.

    Raises:
        InvalidRequestError: the start is in the past, or a ramp begins above the pace.
    """
    if body.start_at is not None and from_datetime(body.start_at) < now:
        raise _bad("start_at", f"is in the past: it is {to_rfc3339(now)} now. Leave it out to start at once.")
    ramp = body.pace.ramp
    if ramp is not None and ramp.from_per_minute > per_minute:
        raise _bad(
            "pace.ramp.from_per_minute",
            f"is {ramp.from_per_minute}, above pace.per_minute ({per_minute}). A ramp rises: lower it, or leave "
            "pace.ramp out.",
        )


def _bad(field: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: {problem}", details={"field": field})


def choose(view: View, project_id: str, body: CreateJob) -> list[NewTarget]:
    """Return the targets: in the order of ``device_ids``, or those that pass the filter, the oldest device first.

    Raises:
        InvalidRequestError: no device passes the filter, or too many do.
    """
    if body.targets.device_ids is not None:
        return list(named(view, project_id, body.targets.device_ids))
    return _filtered(view, project_id, body.targets.query)


def _filtered(view: View, project_id: str, query: ListDevices) -> list[NewTarget]:
    chosen = device_list.generations(view, project_id, query, MOST_TARGETS + 1)
    found = [NewTarget(pk, None, generation) for pk, generation in chosen]
    if not found:
        raise _bad("targets.filter", "no device passes it. Check it with GET /v1/devices, which takes the same.")
    if len(found) > MOST_TARGETS:
        raise _bad("targets.filter", f"more than {MOST_TARGETS} devices pass it. Narrow it, and create several jobs.")
    return found


def named(view: View, project_id: str, device_ids: Sequence[str]) -> Iterator[NewTarget]:
    """Yield a target for each of these ids, once each. Unknown and deleted devices are skipped."""
    wanted = list(dict.fromkeys(device_ids))
    for start in range(0, len(wanted), _LOOK_UP):
        some = wanted[start : start + _LOOK_UP]
        known = {row.id: row for row in job_choice_sql.named(view, project_id, some)}
        for device_id in some:
            row = known.get(device_id)
            if row is None:
                yield NewTarget(None, redact(device_id), None, SkipReason.NOT_FOUND)
            else:
                reason = None if row.deleted_at is None else SkipReason.DELETED
                yield NewTarget(row.pk, None, row.binding_generation, reason)


def require_confirmed(body: CreateJob, number: int) -> None:
    """Check the count that the caller has in mind.

    Raises:
        ConflictError: ``confirmation_needed``: it is missing for a large factory reset, or is another.
    """
    if body.confirm_count == number:
        return
    if body.confirm_count is None and (body.action.type != RESET or number <= CONFIRMED_ABOVE):
        return
    given = "is missing" if body.confirm_count is None else f"is {body.confirm_count}"
    raise ConflictError(
        "confirmation_needed",
        f"confirm_count: {given}, and this job has {number} targets. Nothing was done. If you mean all of them, send "
        f'the request again with "confirm_count": {number}.',
        details={"field": "confirm_count", "count": number},
    )


# --- preview ----------------------------------------------------------------------------------------------------------


def preview(view: View, project_id: str, body: CreateJob) -> JobPreview:
    """Return what the job would do now. It reads some devices at a time, so 100,000 take little memory."""
    targets = choose(view, project_id, body)
    counts: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    shown: list[JobPreviewDevice] = []
    for start in range(0, len(targets), _LOOK_UP):
        some = targets[start : start + _LOOK_UP]
        states = _states(view, some, body.action.type)
        for target in some:
            row = None if target.device_pk is None else states[target.device_pk]
            reason = target.reason or (None if row is None else _why_skip(row, body.action.type))
            counts["would_queue" if reason is None else reason.value] += 1
            waits[_why_wait(row) if row is not None and reason is None else ""] += 1
            if len(shown) < DRY_RUN_SHOWN:
                shown.append(
                    JobPreviewDevice(
                        device_id=target.unknown_id or ("" if row is None else row.id),
                        outcome="would_queue" if reason is None else "skipped",
                        reason=reason,
                    )
                )
    return JobPreview(
        total=len(targets),
        counts=dict(counts),
        waits=JobPreviewWaits(**{name: waits[name] for name in JobPreviewWaits.model_fields}),
        devices=shown,
        has_more=len(targets) > len(shown),
    )


def _states(view: View, targets: Sequence[NewTarget], action: str) -> dict[int, TargetState]:
    pks = [each.device_pk for each in targets if each.device_pk is not None]
    return {row.pk: row for row in job_choice_sql.states(view, pks, action)}


def _why_wait(row: TargetState) -> str:
    """Return the field of :class:`JobPreviewWaits` that counts this device; empty where it can be reached now."""
    if row.last_seen_by == Radio.BLE:
        return "bluetooth_only"
    if row.connection is None:
        return "never_seen"
    return "" if row.connection == "online" else "offline"


def _why_skip(row: TargetState, action: str) -> SkipReason | None:
    if action == RESET:
        return SkipReason.ALREADY_PENDING if row.is_open else None
    if not row.is_bound:
        return SkipReason.NOT_BOUND
    return SkipReason.COMMAND_PENDING if row.is_open else None


# --- writing ----------------------------------------------------------------------------------------------------------


def begin(tx: Tx, project_id: str, actor: str, body: CreateJob, targets: Sequence[NewTarget]) -> str:
    """Insert a job in preparation; return its id."""
    skipped = sum(each.reason is not None for each in targets)
    job = _record(tx, project_id, actor, body)._replace(total=len(targets), skipped=skipped)
    job_sql.insert(tx, job)
    return job.id


def _record(tx: Tx, project_id: str, actor: str, body: CreateJob) -> JobRecord:
    action, ramp, abort = body.action, body.pace.ramp, body.abort
    return JobRecord(
        id=tx.new_id(ids.JOB),
        project_id=project_id,
        name=redact(body.name),
        reason=None if body.reason is None else redact(body.reason),
        type=action.type,
        params=json.dumps(_params(body), ensure_ascii=False),
        ttl_seconds=None if action.type == RESET else action.ttl_seconds or DEFAULT_TTL_SECONDS,
        status=PREPARING,
        created_by=actor,
        created_by_name=actor_names.lasting(tx, actor),
        created_at=tx.now,
        start_at=None if body.start_at is None else from_datetime(body.start_at),
        started_at=None,
        paused_at=None,
        finished_at=None,
        aborted_because=None,
        per_minute=per_minute(body, tx.rules.bulk_reset_per_second),
        ramp_from=None if ramp is None else ramp.from_per_minute,
        ramp_double_ms=None if ramp is None else ramp.double_after * SECOND_MS,
        failed_percent=None if abort is None else abort.failed_percent,
        min_done=None if abort is None else abort.min_done,
    )


def per_minute(body: CreateJob, bulk_reset_per_second: int) -> int:
    """Return the pace in force."""
    return body.pace.per_minute or bulk_reset_per_second * _SECONDS_A_MINUTE


def _params(body: CreateJob) -> dict[str, object]:
    given = body.action.params or {}
    return {"recordings": "keep", **given} if body.action.type == RESET else given


def add(batch: Batch, job_id: str, targets: Sequence[NewTarget], first: int) -> int:
    """Insert some of the targets, from ``first`` on; return the position of the next one that is to be inserted."""
    end = min(first + _AT_ONCE, len(targets))
    while first < end:
        job_target_sql.insert(batch.tx, job_id, first, targets[first : first + PART])
        first += PART
        if batch.should_stop():
            break
        batch.yield_to_urgent()
    return first


def create(tx: Tx, project_id: str, actor: str, body: CreateJob, targets: Sequence[NewTarget]) -> JobRecord:
    """Create a job with few targets in one transaction."""
    job_id = begin(tx, project_id, actor, body, targets)
    job_target_sql.insert(tx, job_id, 0, targets)
    return finish(tx, job_id)


def create_for_bulk_reset(
    tx: Tx, project_id: str, actor: str, device_ids: Sequence[str], asked: ResetDevice
) -> JobRecord:
    """Create the job of a bulk reset. The request itself gives its targets their turns.

    A worker goes on with it only when the request must have broken off: after :data:`HELD_MS`.
    """
    action = JobAction(type=RESET, params={"recordings": asked.recordings or "keep"})
    body = CreateJob(
        name=BULK_RESET,
        reason=asked.reason,
        action=action,
        targets=JobTargets(device_ids=list(device_ids)),
        abort=None,
    )
    job = create(tx, project_id, actor, body, list(named(tx, project_id, device_ids)))
    return job_sql.change(tx, job.id, held_until=tx.now + HELD_MS)


def finish(tx: Tx, job_id: str) -> JobRecord:
    """Make a job of what was prepared: scheduled, or running from now on.

    Raises:
        UnavailableError: it took so long that a worker has deleted it.
    """
    try:
        job = job_sql.by_id(tx, job_id)
    except LookupError as error:
        raise UnavailableError("The job took too long to prepare. Nothing was done. Send the request again.") from error
    if job.start_at is not None:
        job = job_sql.change(tx, job_id, status=JobStatus.SCHEDULED)
    else:
        progress = job_pace.begin(tx.now)
        job = job_sql.change(tx, job_id, status=JobStatus.RUNNING, started_at=tx.now, **progress._asdict())
    jobs.record_created(tx, job)
    if job.skipped:
        tx.measure(measurements.JOB_TARGET, Outcome.SKIPPED, job.skipped)
    return jobs.settle(tx, job)
