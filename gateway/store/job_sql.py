"""SQL of jobs. Their targets: :mod:`gateway.store.job_target_sql`; lists: :mod:`gateway.store.job_list`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.models.jobs import COUNTED, ENDS, JobStatus, Outcome
from gateway.store import measurements
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.store.transaction import Tx, View

PREPARING: Final = "preparing"
"""Status of a job whose targets are still written. No list shows it."""
_RUNNING: Final = JobStatus.RUNNING.value
_SCHEDULED: Final = JobStatus.SCHEDULED.value


class JobRecord(NamedTuple):
    """A job. Times are milliseconds since the epoch; ``params`` is JSON text.

    ``type`` is a value of ``CommandType``, ``status`` one of ``JobStatus`` or :data:`PREPARING`. Without a ramp or an
    abort threshold their two columns are None. Nothing is queued before ``held_until``. ``taking_back`` is 1 while
    commands of an aborted or cancelled job are taken back.
    """

    id: str
    project_id: str
    name: str
    reason: str | None
    type: str
    params: str
    ttl_seconds: int | None
    status: str
    created_by: str
    created_by_name: str | None
    created_at: int
    start_at: int | None
    started_at: int | None
    paused_at: int | None
    finished_at: int | None
    aborted_because: str | None
    per_minute: int
    ramp_from: int | None
    ramp_double_ms: int | None
    failed_percent: int | None
    min_done: int | None
    cancelled_by: str | None = None
    total: int = 0
    queued: int = 0
    delivered: int = 0
    executed: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    held_until: int = 0
    paced_at: int = 0
    active_ms: int = 0
    credit: int = 0
    taking_back: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of targets, and of those with each outcome."""
        return {"total": self.total, **{name: getattr(self, name) for name in COUNTED}}

    @property
    def waiting(self) -> int:
        """Return how many targets wait for their turn."""
        had = self.queued + self.delivered + self.executed + self.failed + self.cancelled + self.skipped
        return self.total - had

    @property
    def open(self) -> int:
        """Return how many commands of it are open."""
        return self.queued + self.delivered


_JOBS: Final = f"SELECT {columns(JobRecord, 'j')} FROM jobs j"  # noqa: S608 - our own columns


def find(view: View, project_id: str, job_id: str) -> JobRecord | None:
    """Return a job of this project whose targets are all written."""
    return view.record(
        JobRecord, f"{_JOBS} WHERE j.id = ? AND j.project_id = ? AND j.status <> ?", job_id, project_id, PREPARING
    )


def by_id(view: View, job_id: str) -> JobRecord:
    """Return a job of any project, also one that is being prepared.

    Raises:
        LookupError: there is no such job.
    """
    job = view.record(JobRecord, f"{_JOBS} WHERE j.id = ?", job_id)
    if job is None:
        raise LookupError(f"no job {job_id}")
    return job


def page(view: View, project_id: str, status: str | None, cursor: str | None, limit: int) -> list[JobRecord]:
    """Return a page, newest first, and one job more than ``limit`` when there are more."""
    having = ("j.status <> ?", PREPARING) if status is None else ("j.status = ?", status)
    return view.records(
        JobRecord,
        f"{_JOBS} WHERE j.project_id = ? AND {having[0]} AND j.id < coalesce(?, '~') ORDER BY j.id DESC LIMIT ?",
        *(project_id, having[1], cursor, limit + 1),
    )


def insert(tx: Tx, job: JobRecord) -> None:
    """Insert a job."""
    names, marks = ", ".join(JobRecord._fields), ", ".join("?" * len(job))
    tx.run(f"INSERT INTO jobs ({names}) VALUES ({marks})", *job)  # noqa: S608 - our own columns


def change(tx: Tx, job_id: str, /, **values: Any) -> JobRecord:
    """Set these columns; return the job as it is then."""
    setting = ", ".join(f"{name} = ?" for name in values)
    tx.run(f"UPDATE jobs SET {setting} WHERE id = ?", *values.values(), job_id)  # noqa: S608 - names of columns in the code
    return by_id(tx, job_id)


def add(tx: Tx, job_id: str, changes: Mapping[Outcome, int]) -> JobRecord:
    """Add to the counts, negative numbers too; return the job as it is then. Waiting targets are not counted.

    The metrics count how many have their end now.
    """
    counted = {name: number for name, number in changes.items() if name is not Outcome.WAITING}
    for name in ENDS:
        if changes.get(name, 0) > 0:
            tx.measure(measurements.JOB_TARGET, name, changes[name])
    setting = ", ".join(f"{name} = {name} + ?" for name in counted)
    tx.run(f"UPDATE jobs SET {setting} WHERE id = ?", *counted.values(), job_id)  # noqa: S608 - members of an enum
    return by_id(tx, job_id)


def with_work(view: View, now: int) -> list[JobRecord]:
    """Return jobs that run and have waiting targets, or that are due to start."""
    return view.records(
        JobRecord,
        f"""{_JOBS} WHERE j.status = '{_RUNNING}'
            OR (j.status = '{_SCHEDULED}' AND j.start_at <= ?1) ORDER BY j.id""",
        now,
    )


def taking_back(view: View) -> list[JobRecord]:
    """Return jobs that take commands back."""
    return view.records(JobRecord, f"{_JOBS} WHERE j.taking_back = 1 ORDER BY j.id")


def abandoned(view: View, before: int, after: int) -> list[str]:
    """Return jobs in preparation from before or after these instants: that process is gone."""
    rows = view.all(
        "SELECT id FROM jobs WHERE status = ? AND (created_at < ? OR created_at > ?)", PREPARING, before, after
    )
    return [row["id"] for row in rows]


def ended(view: View, before: int, limit: int) -> list[str]:
    """Return jobs that ended before this instant and have no open command."""
    rows = view.all(
        """SELECT id FROM jobs WHERE status IN ('completed', 'aborted', 'cancelled') AND finished_at < ?
            AND queued = 0 AND delivered = 0 AND taking_back = 0 ORDER BY id LIMIT ?""",
        *(before, limit),
    )
    return [row["id"] for row in rows]


def delete(tx: Tx, job_id: str) -> None:
    """Delete a job that has no targets any more."""
    tx.run("DELETE FROM jobs WHERE id = ?", job_id)


def by_status(view: View) -> dict[str, int]:
    """Return the number of jobs of all projects by status."""
    rows = view.all("SELECT status, count(*) FROM jobs WHERE status <> ? GROUP BY status", PREPARING)
    return {row[0]: row[1] for row in rows}
