"""Work of jobs: turns of waiting targets, commands taken back, and old jobs deleted (contract, section 8).

Each function is a short transaction and may be repeated after a crash: what it has done is in the rows that it reads.
A target that is not ``waiting`` any more never gets a second turn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.core.clock import DAY_MS, MINUTE_MS
from gateway.core.command_types import CommandType
from gateway.domain import commands, devices, job_creation, job_pace, jobs
from gateway.errors import BacklogError, ConflictError
from gateway.models.commands import CreateCommand
from gateway.models.jobs import JobStatus, Outcome, SkipReason
from gateway.models.resets import ResetDevice
from gateway.store import Tx, View, command_sql, device_sql, job_sql, job_target_sql
from gateway.store.device_sql import DeviceRecord
from gateway.store.job_sql import JobRecord
from gateway.store.job_target_sql import TargetRecord

RESET: Final = CommandType.FACTORY_RESET
GROUP: Final = 10
"""Targets that get their turn in one transaction: 10 to 20 ms, so that other writes come in between."""
PREPARED_MS: Final = 10 * MINUTE_MS
"""A job in preparation that is older was left behind by a crash."""
CANCELLED_AT_ONCE: Final = 500
_DELETED_AT_ONCE: Final = 5_000
INTERNAL_ERROR: Final = "internal_error"


class Turn(NamedTuple):
    """What a turn did to a target: the command that it has queued, or why it has queued none."""

    target: TargetRecord
    outcome: Outcome
    reason: str | None = None
    command_id: str | None = None


def start(tx: Tx, job_id: str) -> None:
    """Start a scheduled job whose time has come. One that was cancelled meanwhile stays as it is."""
    job = job_sql.by_id(tx, job_id)
    if job.status in jobs.START.before:
        jobs.start(tx, job, jobs.GATEWAY)


def is_due(job: JobRecord, now: int) -> bool:
    """Return whether a target of this job has its turn now, or the pace begins again after the clock was set back."""
    if job.status != JobStatus.RUNNING or not job.waiting or is_held(job, now):
        return False
    return job.paced_at > now or job_pace.advance(jobs.pace_of(job), jobs.progress_of(job), now).turns > 0


def is_held(job: JobRecord, now: int) -> bool:
    """Return whether the request that made this job still gives its targets their turns.

    A time further ahead is one from before the clock was set back.
    """
    return now < job.held_until <= now + job_creation.HELD_MS


def take_turns(tx: Tx, job_id: str, limit: int = GROUP) -> int:
    """Give the next targets their turns, at most ``limit``; return how many had theirs.

    The pace, the targets, their commands and the counts change together or not at all.
    """
    job = job_sql.by_id(tx, job_id)
    if job.status != JobStatus.RUNNING or is_held(job, tx.now):
        return 0
    progress = job_pace.advance(jobs.pace_of(job), jobs.progress_of(job), tx.now)
    targets = job_target_sql.with_outcome(tx, job_id, Outcome.WAITING, min(limit, progress.turns))
    turns = [_turn(tx, job, target) for target in targets]
    for turn in turns:
        job_target_sql.set_outcome(
            tx, job_id, turn.target.position, turn.outcome, reason=turn.reason, command_id=turn.command_id
        )
    used = progress._replace(credit=progress.credit - len(turns) * job_pace.TURN)
    job_sql.change(tx, job_id, **used._asdict())
    if turns:
        jobs.settle(tx, job_sql.add(tx, job_id, Counter(turn.outcome for turn in turns)))
    return len(turns)


def give_up(tx: Tx, job_id: str) -> None:
    """Let the next target fail: the gateway itself failed at it, and would again."""
    job = job_sql.by_id(tx, job_id)
    for target in job_target_sql.with_outcome(tx, job_id, Outcome.WAITING, 1):
        if job.status == JobStatus.RUNNING:
            jobs.move(tx, target, Outcome.FAILED, reason=INTERNAL_ERROR)


def _turn(tx: Tx, job: JobRecord, target: TargetRecord) -> Turn:
    if target.device_pk is None:
        return Turn(target, Outcome.SKIPPED, SkipReason.NOT_FOUND)
    device = device_sql.by_pk(tx, target.device_pk)
    reason = _why_skip(tx, job, target, device)
    if reason is not None:
        return Turn(target, Outcome.SKIPPED, reason)
    return Turn(target, Outcome.QUEUED, command_id=_queue(tx, job, device))


def _why_skip(view: View, job: JobRecord, target: TargetRecord, device: DeviceRecord) -> SkipReason | None:
    """Return why nothing may be done to this device now, or None."""
    is_open = command_sql.open_of_type(view, device.pk, job.type) is not None
    if device.deleted_at is not None:
        return SkipReason.DELETED
    if job.type == RESET and is_open:
        return SkipReason.ALREADY_PENDING
    if device.binding_generation != target.binding_generation:
        return SkipReason.BOUND_ANEW
    if job.type != RESET and device.bound_at is None:
        return SkipReason.NOT_BOUND
    return SkipReason.COMMAND_PENDING if is_open else None


def _queue(tx: Tx, job: JobRecord, device: DeviceRecord) -> str:
    jobs.act_for_creator(tx, job)
    params = json.loads(job.params)
    if job.type == RESET:
        asked = ResetDevice(reason=job.reason, recordings=params["recordings"])
        devices.reset(tx, device.project_id, device.id, job.created_by, asked)
        command = command_sql.open_of_type(tx, device.pk, RESET)
        if command is None:
            raise LookupError(f"the reset of {device.id} was not queued")
        return command.id
    body = CreateCommand(type=CommandType(job.type), params=params, ttl_seconds=job.ttl_seconds or 1)
    return commands.create(tx, device, body, job.created_by).id


# --- taking back ------------------------------------------------------------------------------------------------------


def cancel_waiting(tx: Tx, job_id: str) -> int:
    """Cancel some of the targets that never got a turn; return how many, 0 when none are left."""
    done = job_target_sql.cancel_waiting(tx, job_id, CANCELLED_AT_ONCE)
    if done:
        job_sql.add(tx, job_id, {Outcome.CANCELLED: done})
    return done


def queued(view: View, job_id: str, after: int, limit: int) -> list[TargetRecord]:
    """Return the next targets whose command is not delivered, after this position."""
    return job_target_sql.with_outcome(view, job_id, Outcome.QUEUED, limit, after=after)


def take_back(tx: Tx, job_id: str, targets: Sequence[TargetRecord], *, taken_in: bool) -> int:
    """Cancel the commands of these targets; return how many wait until the broker's backlog is read.

    ``taken_in`` says that it is read. A command that was delivered meanwhile stays as it is.
    """
    job, left = job_sql.by_id(tx, job_id), 0
    for target in targets:
        if target.device_pk is None or target.command_id is None:
            continue
        device = device_sql.by_pk(tx, target.device_pk)
        try:
            commands.cancel(tx, device, target.command_id, job.cancelled_by or jobs.GATEWAY, taken_in=taken_in)
        except BacklogError:
            left += 1
        except ConflictError:
            continue
    return left


def end_taking_back(tx: Tx, job_id: str) -> None:
    """Record that nothing is left to take back."""
    job_sql.change(tx, job_id, taking_back=0)


# --- deleting ---------------------------------------------------------------------------------------------------------


def deletable(view: View, now: int, history_days: int) -> list[str]:
    """Return jobs to delete: their preparation broke off, or they ended longer ago than events are kept."""
    abandoned = job_sql.abandoned(view, now - PREPARED_MS, now + PREPARED_MS)
    return abandoned + job_sql.ended(view, now - history_days * DAY_MS, 1)


def delete(tx: Tx, job_id: str) -> int:
    """Delete some targets of a job, then the job; return how many rows, 0 when it is gone."""
    done = job_target_sql.delete(tx, job_id, _DELETED_AT_ONCE)
    if done < _DELETED_AT_ONCE:
        job_sql.delete(tx, job_id)
        return 0
    return done
