"""Operations on jobs: create, list, look at their devices, pause, resume, cancel (contract, section 8)."""

from __future__ import annotations

from functools import partial
from typing import Final

from gateway.core import ids
from gateway.core.clock import to_rfc3339
from gateway.domain import job_creation, job_pace, jobs
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting
from gateway.http.resources.devices import bad_cursor
from gateway.http.responses import ApiResponse
from gateway.models.fields import Empty
from gateway.models.job_requests import CreateJob
from gateway.models.jobs import (
    Job,
    JobDeviceList,
    JobList,
    JobPreview,
    JobProgress,
    JobProgressPoint,
    ListJobDevices,
    ListJobs,
    ShowJobProgress,
)
from gateway.store import Tx, View, job_list, job_sql, job_target_sql
from gateway.store.job_sql import JobRecord
from gateway.store.job_target_sql import NewTarget, ProgressPoint

TAG: Final = "jobs"
MOST_BODY_BYTES: Final = 4 * 2**20
"""100,000 ids are 3.3 MB."""


async def create_job(call: RequestContext, body: CreateJob) -> ApiResponse:
    """``POST /v1/jobs``: a small job in one transaction, a large one in parts."""
    context = call.services.store.context
    job_creation.check(body, context.clock(), job_creation.per_minute(body, context.rules.bulk_reset_per_second))
    if body.dry_run:
        return ApiResponse(await call.work.scan(lambda view: job_creation.preview(view, call.project_id, body)))
    targets = await call.work.scan(lambda view: job_creation.choose(view, call.project_id, body))
    job_creation.require_confirmed(body, len(targets))
    if len(targets) <= job_creation.PART:
        return await call.work.commit(
            lambda tx: _created(job_creation.create(tx, call.project_id, call.actor, body, targets))
        )
    job_id = await _prepare(call, body, targets)
    return await call.work.commit(lambda tx: _created(job_creation.finish(tx, job_id)))


async def _prepare(call: RequestContext, body: CreateJob, targets: list[NewTarget]) -> str:
    """Write the targets in parts, each after urgent writes, so that other requests do not wait."""
    store = call.services.store
    job_id = await store.write(lambda tx: job_creation.begin(tx, call.project_id, call.actor, body, targets))
    written = 0
    while written < len(targets):
        add = partial(job_creation.add, job_id=job_id, targets=targets, first=written)
        written = await store.write_batch(add)
    return job_id


def _created(job: JobRecord) -> ApiResponse:
    return ApiResponse(_models([job], job.created_at)[0], status=201)


def _models(found: list[JobRecord], now: int) -> list[Job]:
    return [job_list.to_model(job, _rate(job, now)) for job in found]


def _rate(job: JobRecord, now: int) -> int:
    pace = jobs.pace_of(job)
    return pace.rate(job_pace.advance(pace, jobs.progress_of(job), now).active_ms)


async def list_jobs(call: RequestContext, query: ListJobs) -> ApiResponse:
    """``GET /v1/jobs``."""
    if query.cursor is not None and not ids.is_id(ids.JOB, query.cursor):
        raise bad_cursor()
    now = call.services.store.context.clock()

    def read(view: View) -> list[Job]:
        return _models(job_sql.page(view, call.project_id, query.status, query.cursor, query.limit), now)

    page, more = fitting(await call.work.read(read), query.limit, lambda job: job)
    return ApiResponse(JobList(data=page, has_more=more, next_cursor=page[-1].id if more else None))


async def get_job(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/jobs/{job_id}``."""
    now = call.services.store.context.clock()
    return ApiResponse(await call.work.read(lambda view: _models([_require(view, call)], now)[0]))


def _require(view: View, call: RequestContext) -> JobRecord:
    return jobs.require(view, call.project_id, call.request.path["job_id"])


async def list_job_devices(call: RequestContext, query: ListJobDevices) -> ApiResponse:
    """``GET /v1/jobs/{job_id}/devices``."""
    if query.cursor is not None and not (query.cursor.isascii() and query.cursor.isdecimal()):
        raise bad_cursor()
    after = -1 if query.cursor is None else min(int(query.cursor), job_target_sql.HIGHEST_POSITION)
    found = await call.work.read(
        lambda view: job_target_sql.page(view, _require(view, call).id, query.outcome or (), after, query.limit)
    )
    page, more = fitting(found, query.limit, job_list.to_device)
    return ApiResponse(
        JobDeviceList(data=page, has_more=more, next_cursor=str(found[len(page) - 1].position) if more else None)
    )


async def get_job_progress(call: RequestContext, query: ShowJobProgress) -> ApiResponse:
    """``GET /v1/jobs/{job_id}/progress``."""

    def read(view: View) -> list[ProgressPoint]:
        job = _require(view, call)
        return [] if job.started_at is None else job_target_sql.progress(view, job.id, job.started_at, query.points)

    found = await call.work.scan(read)
    data = [JobProgressPoint(at=to_rfc3339(each.at), done=each.done, failed=each.failed) for each in found]
    return ApiResponse(JobProgress(data=data))


async def pause_job(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/jobs/{job_id}/pause``."""
    return await call.work.commit(lambda tx: _changed(tx, jobs.pause(tx, *_named(call))))


async def resume_job(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/jobs/{job_id}/resume``."""
    return await call.work.commit(lambda tx: _changed(tx, jobs.resume(tx, *_named(call))))


async def cancel_job(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/jobs/{job_id}/cancel``."""
    return await call.work.commit(lambda tx: _changed(tx, jobs.cancel(tx, *_named(call))))


def _named(call: RequestContext) -> tuple[str, str, str]:
    return call.project_id, call.request.path["job_id"], call.actor


def _changed(tx: Tx, job: JobRecord) -> ApiResponse:
    return ApiResponse(_models([job], tx.now)[0])


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path="/v1/jobs",
        summary="Create a job",
        description="Does one thing to many devices, at a pace, and stops by itself when too many fail. The targets "
        "(at most 100,000) are fixed when this is answered: a device that is bound again later is skipped. A factory "
        "reset of more than 100 devices needs `confirm_count`. Send it with `dry_run` first: the answer (200) says "
        "what would happen. The body may have 4 MiB.",
        tag=TAG,
        access=WRITE,
        takes=CreateJob,
        handler=create_job,
        answers={200: JobPreview, 201: Job},
        conflicts=("confirmation_needed",),
        most_body_bytes=MOST_BODY_BYTES,
    ),
    Operation(
        method="GET",
        path="/v1/jobs",
        summary="List jobs",
        description="Newest first, with the counts of their targets. The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListJobs,
        handler=list_jobs,
        answers={200: JobList},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}",
        summary="Get a job",
        description="How far a job is: its counts always equal the outcomes of its targets.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_job,
        answers={200: Job},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/devices",
        summary="List the devices of a job",
        description="What became of each target, in the order of their turns. `outcome` may be there several times. "
        "The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListJobDevices,
        handler=list_job_devices,
        answers={200: JobDeviceList},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/progress",
        summary="Get the progress of a job over time",
        description="How many targets were done, and how many had failed, since the start of the job. Empty as long as "
        "nothing is done.",
        tag=TAG,
        access=READ,
        takes=ShowJobProgress,
        handler=get_job_progress,
        answers={200: JobProgress},
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/pause",
        summary="Pause a job",
        description="A running job queues nothing more until it is resumed. What it has queued stays queued.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=pause_job,
        answers={200: Job},
        conflicts=("job_not_running",),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/resume",
        summary="Resume a job",
        description="A paused job goes on at the rate that it had. Turns that it missed are not made up for.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=resume_job,
        answers={200: Job},
        conflicts=("job_not_paused",),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        summary="Cancel a job",
        description="The job queues nothing more from now on. What no device has reported as delivered is taken back "
        "within seconds after the answer; `counts` shows that. What is delivered goes on. An aborted job can be "
        "cancelled, too: it stays `aborted`, and its commands are taken back.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=cancel_job,
        answers={200: Job},
        conflicts=("job_final",),
    ),
)
