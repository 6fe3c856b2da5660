"""Jobs of a test's registry, in short words."""

import json
from typing import Any

from gateway.domain import job_creation, job_work, jobs
from gateway.models.job_requests import CreateJob
from gateway.models.jobs import COUNTED
from gateway.store import job_sql, job_target_sql
from gateway.store.job_sql import JobRecord
from tests.domain.support import World


def request(device_ids: list[str], **more: Any) -> CreateJob:
    """The body of a request for a job: a factory reset unless told otherwise, fifty devices a second."""
    asked = {"name": "recall", "action": "factory_reset", "targets": {"device_ids": device_ids}, **more}
    return CreateJob.model_validate_json(json.dumps(asked))


def make(world: World, device_ids: list[str], **more: Any) -> JobRecord:
    """A new job."""
    return make_by(world, "key_1", device_ids, **more)


def make_by(world: World, actor: str, device_ids: list[str], **more: Any) -> JobRecord:
    """A new job of this actor."""
    body = request(device_ids, **more)
    job_creation.check(body, world.now, job_creation.per_minute(body, 50))
    targets = job_creation.choose(world.view, world.project_id, body)
    return world.run(job_creation.create, world.project_id, actor, body, targets)


def again(world: World, job: JobRecord) -> JobRecord:
    """The job as it is now."""
    return job_sql.by_id(world.view, job.id)


def work(world: World, job: JobRecord, *, minutes: float = 1.0, tick_ms: int = 250) -> int:
    """Let the worker work for so long; how many targets had their turn."""
    taken, end = 0, world.now + int(minutes * 60_000)
    while world.now < end:
        taken += turns(world, job)
        world.now += tick_ms
    return taken


def turns(world: World, job: JobRecord) -> int:
    """What the worker does for a job in one round."""
    taken = 0
    while job_work.is_due(again(world, job), world.now):
        taken += world.run(job_work.take_turns, job.id)
    return taken


def outcomes(world: World, job: JobRecord) -> list[tuple[str, str | None]]:
    """Outcome and reason of each target, in order."""
    rows = job_target_sql.page(world.view, job.id, (), -1, 1_000)
    return [(row.outcome, row.reason) for row in rows]


def take_back(world: World, job: JobRecord) -> None:
    """What the worker does for a cancelled job once the broker's backlog is read."""
    while world.run(job_work.cancel_waiting, job.id):
        pass
    after = -1
    while found := job_work.queued(world.view, job.id, after, 10):
        world.run(job_work.take_back, job.id, found, taken_in=True)
        after = found[-1].position
    world.run(job_work.end_taking_back, job.id)


def require_counts(world: World, job: JobRecord) -> None:
    """Check that the counts of the job equal the outcomes of its targets."""
    found, now = job_target_sql.counted(world.view, job.id), again(world, job)
    assert {name: found.get(name, 0) for name in COUNTED} == {name: now.counts[name] for name in COUNTED}
    assert (sum(found.values()), found.get("waiting", 0)) == (now.total, now.waiting)


def verbs(world: World, job: JobRecord, verb: str) -> JobRecord:
    """Pause, resume or cancel."""
    done: JobRecord = world.run(getattr(jobs, verb), world.project_id, job.id, "key_1")
    return done


def bound_fleet(world: World, number: int) -> dict[str, str]:
    """Tokens of so many bound devices, by their ids."""
    return dict(world.bound(f"SN-{each}") for each in range(number))


def end(world: World, device_id: str, token: str, status: str) -> None:
    """The device reports on its open reset."""
    error = {"error": {"code": "flash_worn", "message": ""}} if status == "failed" else {}
    world.ack(world.command(device_id), status, token, **error)
