"""Jobs: their states, and how outcomes of their targets are counted (contract, section 8).

The counts are columns of the job's row. They change in the transaction that changes a target, so they always equal the
outcomes of the targets, and the report that reaches the abort threshold aborts the job itself. Targets are chosen in
:mod:`gateway.domain.job_creation`, and get their turns in :mod:`gateway.domain.job_work`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.core.text import count
from gateway.domain import job_pace
from gateway.domain.job_pace import Pace, Progress
from gateway.errors import ConflictError, NotFoundError
from gateway.models.events import EventType
from gateway.models.jobs import JobStatus, Outcome
from gateway.models.states import CommandStatus
from gateway.store import Tx, View, event_sql, job_sql, job_target_sql
from gateway.store.job_sql import JobRecord
from gateway.store.job_target_sql import TargetRecord

GATEWAY: Final = "gateway"


class Transition(NamedTuple):
    """A change of status: from which ones, to which, and its event."""

    before: frozenset[JobStatus]
    after: JobStatus
    event: EventType


START: Final = Transition(frozenset({JobStatus.SCHEDULED}), JobStatus.RUNNING, EventType.JOB_STARTED)
PAUSE: Final = Transition(frozenset({JobStatus.RUNNING}), JobStatus.PAUSED, EventType.JOB_PAUSED)
RESUME: Final = Transition(frozenset({JobStatus.PAUSED}), JobStatus.RUNNING, EventType.JOB_RESUMED)
COMPLETE: Final = Transition(
    frozenset({JobStatus.RUNNING, JobStatus.PAUSED}), JobStatus.COMPLETED, EventType.JOB_COMPLETED
)
ABORT: Final = Transition(frozenset({JobStatus.RUNNING, JobStatus.PAUSED}), JobStatus.ABORTED, EventType.JOB_ABORTED)
CANCEL: Final = Transition(
    frozenset({JobStatus.SCHEDULED, JobStatus.RUNNING, JobStatus.PAUSED}),
    JobStatus.CANCELLED,
    EventType.JOB_CANCELLED,
)
TRANSITIONS: Final = (START, PAUSE, RESUME, COMPLETE, ABORT, CANCEL)
"""Every change of status there is. A new job is ``scheduled`` or ``running``."""

OUTCOMES: Final[Mapping[CommandStatus, Outcome]] = {
    CommandStatus.PENDING: Outcome.QUEUED,
    CommandStatus.DELIVERED: Outcome.DELIVERED,
    CommandStatus.EXECUTED: Outcome.EXECUTED,
    CommandStatus.FAILED: Outcome.FAILED,
    CommandStatus.EXPIRED: Outcome.FAILED,
    CommandStatus.CANCELLED: Outcome.CANCELLED,
}
"""The outcome of a target by the status of its command."""


def require(view: View, project_id: str, job_id: str) -> JobRecord:
    """Return the job.

    Raises:
        NotFoundError: this project has no such job.
    """
    job = job_sql.find(view, project_id, job_id)
    if job is None:
        raise NotFoundError(f"There is no job '{job_id[:80]}' in this project. GET /v1/jobs lists those it has.")
    return job


def pace_of(job: JobRecord) -> Pace:
    """Return the pace that was asked for."""
    return Pace(job.per_minute, job.ramp_from, job.ramp_double_ms)


def progress_of(job: JobRecord) -> Progress:
    """Return how far its pace has come."""
    return Progress(job.paced_at, job.active_ms, job.credit)


def is_final(job: JobRecord) -> bool:
    """Return whether nothing more is queued."""
    return JobStatus(job.status).is_final


# --- what people do ---------------------------------------------------------------------------------------------------


def start(tx: Tx, job: JobRecord, actor: str) -> JobRecord:
    """Start a scheduled job: its first target has its turn at once."""
    progress = job_pace.begin(tx.now)
    return settle(tx, _change(tx, job, START, actor, started_at=tx.now, **progress._asdict()))


def pause(tx: Tx, project_id: str, job_id: str, actor: str) -> JobRecord:
    """Pause a running job. What is queued stays so.

    Raises:
        ConflictError: ``job_not_running``.
    """
    job = require(tx, project_id, job_id)
    if job.status not in PAUSE.before:
        raise _conflict("job_not_running", job, "Only a running job can be paused.")
    progress = job_pace.advance(pace_of(job), progress_of(job), tx.now)
    return _change(tx, job, PAUSE, actor, paused_at=tx.now, **progress._asdict())


def resume(tx: Tx, project_id: str, job_id: str, actor: str) -> JobRecord:
    """Let a paused job go on at the rate that it had. Turns that it missed are not made up for.

    Raises:
        ConflictError: ``job_not_paused``.
    """
    job = require(tx, project_id, job_id)
    if job.status not in RESUME.before:
        raise _conflict("job_not_paused", job, "Only a paused job can be resumed.")
    progress = job_pace.resume(progress_of(job), tx.now)
    return _change(tx, job, RESUME, actor, paused_at=None, **progress._asdict())


def cancel(tx: Tx, project_id: str, job_id: str, actor: str) -> JobRecord:
    """Cancel a job: from this transaction on it queues nothing. A worker takes back what is not delivered.

    An aborted job stays ``aborted``. Its commands that are not delivered are taken back, too.

    Raises:
        ConflictError: ``job_final``: it is completed or cancelled, or aborted with nothing left to take back.
    """
    job = require(tx, project_id, job_id)
    if job.status in CANCEL.before:
        return _change(tx, job, CANCEL, actor, finished_at=tx.now, paused_at=None, cancelled_by=actor, taking_back=1)
    if job.status == JobStatus.ABORTED and not job.taking_back and (job.queued or job.waiting):
        changed = job_sql.change(tx, job.id, cancelled_by=actor, taking_back=1)
        _record(tx, changed, EventType.JOB_CANCELLED, actor)
        return changed
    raise _conflict("job_final", job, "Nothing of it can be taken back.")


def _conflict(code: str, job: JobRecord, rule: str) -> ConflictError:
    return ConflictError(
        code,
        f"This job is {job.status}. {rule} Nothing was changed. GET /v1/jobs/{job.id} says how it stands.",
        details={"status": job.status},
    )


def _change(tx: Tx, job: JobRecord, transition: Transition, actor: str, /, **values: object) -> JobRecord:
    if job.status not in transition.before:
        raise LookupError(f"a job that is {job.status} cannot become {transition.after}")
    changed = job_sql.change(tx, job.id, status=transition.after, **values)
    because = {} if changed.aborted_because is None else {"because": changed.aborted_because}
    _record(tx, changed, transition.event, actor, **because)
    return changed


def _record(tx: Tx, job: JobRecord, kind: EventType, actor: str, /, **facts: str) -> None:
    event_sql.record_administrative(
        tx, job.project_id, kind, actor, job_id=job.id, name=job.name, counts=job.counts, **facts
    )


def act_for_creator(tx: Tx, job: JobRecord) -> None:
    """Let what follows in this transaction name the creator as at the creation: it may be days later."""
    if job.created_by_name is not None:
        tx.actor_names[job.created_by] = job.created_by_name


def record_created(tx: Tx, job: JobRecord) -> None:
    """Write the events of a new job."""
    _record(tx, job, EventType.JOB_CREATED, job.created_by, action=job.type)
    if job.started_at is not None:
        _record(tx, job, EventType.JOB_STARTED, job.created_by)


# --- what becomes of targets ------------------------------------------------------------------------------------------


def follow(tx: Tx, command_id: str, status: CommandStatus, *, reason: str | None = None) -> None:
    """Count that a command has this status now, if a job has queued it."""
    target = job_target_sql.by_command(tx, command_id)
    if target is not None:
        move(tx, target, OUTCOMES[status], reason=reason, command_id=command_id)


def move(
    tx: Tx, target: TargetRecord, outcome: Outcome, *, reason: str | None = None, command_id: str | None = None
) -> JobRecord:
    """Give a target this outcome and count it. Abort or complete the job if that is due; return the job."""
    job_target_sql.set_outcome(
        tx, target.job_id, target.position, outcome, reason=reason, command_id=command_id or target.command_id
    )
    before = Outcome(target.outcome)
    changes = {} if before is outcome else {before: -1, outcome: 1}
    return settle(tx, job_sql.add(tx, target.job_id, changes))


def settle(tx: Tx, job: JobRecord) -> JobRecord:
    """Abort the job if too many have failed; complete it if each target has its end."""
    if job.status not in ABORT.before:
        return job
    because = _why_abort(job)
    if because is not None:
        return _change(tx, job, ABORT, GATEWAY, aborted_because=because, finished_at=tx.now, paused_at=None)
    if job.waiting or job.open:
        return job
    return _change(tx, job, COMPLETE, GATEWAY, finished_at=tx.now, paused_at=None)


def _why_abort(job: JobRecord) -> str | None:
    """Return why too many have failed, or None.

    Executed and failed targets count. A cancelled or skipped one says nothing about the action.
    """
    if job.failed_percent is None or job.min_done is None:
        return None
    done = job.executed + job.failed
    if done < job.min_done or 100 * job.failed < job.failed_percent * done:
        return None
    return (
        f"{job.failed} of {count(done, 'device')} failed ({100 * job.failed // done} %). The limit is "
        f"{job.failed_percent} % once {job.min_done} are done."
    )
