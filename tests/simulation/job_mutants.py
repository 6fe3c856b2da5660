"""Deliberate faults of jobs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

from gateway.domain import devices, job_pace, job_work, jobs
from gateway.domain.job_pace import Pace, Progress
from gateway.domain.job_work import GROUP, Turn
from gateway.http.operation import RequestContext
from gateway.http.resources import fleet
from gateway.http.resources.fleet import BulkJob
from gateway.models.jobs import JobStatus, Outcome, SkipReason
from gateway.models.resets import ResetDevice
from gateway.store import Tx, View, job_sql, job_target_sql
from gateway.store.device_sql import DeviceRecord
from gateway.store.job_sql import JobRecord
from gateway.store.job_target_sql import TargetRecord
from gateway.workers.jobs import JobWorker
from tests.simulation.mutants import mutant


@mutant("a job does not look at the generation", 9)
def _no_fence() -> Iterator[None]:
    real = job_work._why_skip  # noqa: SLF001 - a fault has no manners

    def why_skip(view: View, job: JobRecord, target: TargetRecord, device: DeviceRecord) -> SkipReason | None:
        return real(view, job, target._replace(binding_generation=device.binding_generation), device)

    with patch.object(job_work, "_why_skip", why_skip):
        yield


@mutant("a job notes the id of a command in the transaction after it", 9)
def _noted_later() -> Iterator[None]:
    def queue(tx: Tx, job_id: str) -> list[Turn]:
        job = job_sql.by_id(tx, job_id)
        progress = job_pace.advance(jobs.pace_of(job), jobs.progress_of(job), tx.now)
        if job.status != JobStatus.RUNNING:
            return []
        targets = job_target_sql.with_outcome(tx, job_id, Outcome.WAITING, min(GROUP, progress.turns))
        return [job_work._turn(tx, job, target) for target in targets]  # noqa: SLF001 - the same

    async def group(self: JobWorker, job_id: str) -> int:
        turns = iter(await self._store.write(partial(queue, job_id=job_id), urgent=False))
        with patch.object(job_work, "_turn", lambda *_: next(turns)):
            return await self._store.write(partial(job_work.take_turns, job_id=job_id), urgent=False)

    with patch.object(JobWorker, "_group", group):
        yield


@mutant("a job counts in memory and writes the counts now and then", 9)
def _counted_in_memory() -> Iterator[None]:
    real = job_sql.add
    memory: dict[str, Counter[Outcome]] = defaultdict(Counter)
    calls: Counter[str] = Counter()

    def add(tx: Tx, job_id: str, changes: Mapping[Outcome, int]) -> JobRecord:
        memory[job_id].update(changes)
        calls[job_id] += 1
        if calls[job_id] % 3 == 0:
            return real(tx, job_id, memory.pop(job_id))
        job = job_sql.by_id(tx, job_id)
        counted = {name: number for name, number in memory[job_id].items() if name is not Outcome.WAITING}
        return job._replace(**{name: getattr(job, name) + number for name, number in counted.items()})

    with patch.object(job_sql, "add", add):
        yield


@mutant("a report does not abort the job whose threshold it reaches", 9)
def _not_aborted() -> Iterator[None]:
    real = jobs.move

    def move(*given: Any, **facts: Any) -> JobRecord:
        with patch.object(jobs, "_why_abort", lambda _: None):
            return real(*given, **facts)

    with patch.object(jobs, "move", move):
        yield


@mutant("a job goes on after it was paused or cancelled", 9)
def _goes_on() -> Iterator[None]:
    real, by_id, take_turns = job_sql.with_work, job_sql.by_id, job_work.take_turns
    seen: dict[str, None] = {}

    def running(view: View, job_id: str) -> JobRecord:
        return by_id(view, job_id)._replace(status=JobStatus.RUNNING)

    def with_work(view: View, now: int) -> list[JobRecord]:
        found = real(view, now)
        seen.update(dict.fromkeys(job.id for job in found if job.status == JobStatus.RUNNING))
        known = {job.id for job in found}
        rows = view.all("SELECT id FROM jobs WHERE status IN ('paused', 'cancelled')")
        others = [running(view, row["id"]) for row in rows if row["id"] in seen.keys() - known]
        return [*found, *(job for job in others if job.waiting)]

    def turns(tx: Tx, job_id: str, limit: int = GROUP) -> int:
        with patch.object(job_sql, "by_id", running):
            return take_turns(tx, job_id, limit)

    with patch.object(job_sql, "with_work", with_work), patch.object(job_work, "take_turns", turns):
        yield


@mutant("a job makes up for the turns that it missed while the gateway was away", 9)
def _catches_up() -> Iterator[None]:
    def advance(pace: Pace, progress: Progress, now: int) -> Progress:
        elapsed = max(0, now - progress.paced_at)
        earned = pace.earned(progress.active_ms, elapsed)
        return Progress(now, progress.active_ms + elapsed, progress.credit + earned)

    with patch.object(job_pace, "advance", advance):
        yield


@mutant("a job takes commands back before the broker's backlog is read", 1)
def _unread() -> Iterator[None]:
    real = job_work.take_back

    def take_back(tx: Tx, job_id: str, targets: Sequence[TargetRecord], *, taken_in: bool) -> int:
        del taken_in
        return real(tx, job_id, targets, taken_in=True)

    with patch.object(job_work, "take_back", take_back):
        yield


@mutant("a bulk reset that is repeated does not look at its targets", 9)
def _repeated_blindly() -> Iterator[None]:
    real = fleet._reset  # noqa: SLF001 - the same

    def reset(tx: Tx, call: RequestContext, device_id: str, *, asked: ResetDevice, job: BulkJob) -> str:
        device = devices.require(tx, call.project_id, device_id)
        target = job_target_sql.find(tx, job.id, job.positions[device_id])
        blind = None if target is None else target._replace(outcome=Outcome.WAITING)
        blind = None if blind is None else blind._replace(binding_generation=device.binding_generation)
        with patch.object(job_target_sql, "find", lambda *_: blind):
            return real(tx, call, device_id, asked=asked, job=job)

    with patch.object(fleet, "_reset", reset):
        yield
