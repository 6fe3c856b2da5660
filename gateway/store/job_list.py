"""Jobs and their targets as the API shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.models.jobs import (
    Job,
    JobCounts,
    JobDevice,
    JobStatus,
    Outcome,
    ShownAbort,
    ShownAction,
    ShownPace,
    ShownRamp,
)
from gateway.store.device_sql import moment

if TYPE_CHECKING:
    from gateway.store.job_sql import JobRecord
    from gateway.store.job_target_sql import ListedTarget


def to_model(job: JobRecord, rate_per_minute: int) -> Job:
    """Return a job as the API shows it. ``rate_per_minute`` is its rate if it runs."""
    ramp = None
    if job.ramp_from is not None and job.ramp_double_ms is not None:
        ramp = ShownRamp(from_per_minute=job.ramp_from, double_after=job.ramp_double_ms // SECOND_MS)
    abort = None
    if job.failed_percent is not None and job.min_done is not None:
        abort = ShownAbort(failed_percent=job.failed_percent, min_done=job.min_done)
    status = JobStatus(job.status)
    return Job(
        id=job.id,
        name=job.name,
        reason=job.reason,
        action=ShownAction(type=job.type, params=json.loads(job.params), ttl_seconds=job.ttl_seconds),
        status=status,
        counts=JobCounts(**job.counts),
        pace=ShownPace(per_minute=job.per_minute, ramp=ramp),
        abort=abort,
        created_by=job.created_by,
        created_by_name=job.created_by_name,
        created_at=to_rfc3339(job.created_at),
        start_at=moment(job.start_at),
        started_at=moment(job.started_at),
        paused_at=moment(job.paused_at),
        finished_at=moment(job.finished_at),
        aborted_because=job.aborted_because,
        rate_per_minute=rate_per_minute if status is JobStatus.RUNNING else None,
    )


def to_device(target: ListedTarget) -> JobDevice:
    """Return a target as the API shows it."""
    return JobDevice(
        device_id=target.device_id or target.unknown_id or "",
        serial_number=target.serial_number,
        outcome=Outcome(target.outcome),
        reason=target.reason,
        command_id=target.command_id,
        changed_at=moment(target.changed_at),
    )
