"""What the tables alone say of jobs (invariant 9): of a simulated registry at rest, and of a real one after chaos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from gateway.store import Row
from gateway.store.dialect import SQLITE, SqlDialect
from tests.simulation.certificate_laws import Readable
from tests.simulation.integrator import Finding

COUNTED: Final = ("queued", "delivered", "executed", "failed", "cancelled", "skipped")
COUNTS: Final = "the counts of a job are the outcomes of its targets"
FOLLOWS: Final = "the outcome of a target is that of its command"
FENCE: Final = "a device that was bound after the job was made is left alone"
QUIET: Final = "a job that does not run queues nothing"
ENDS: Final = "a running job ends or waits for a device"
BACK: Final = "a cancelled job takes back what is not delivered"
_OUTCOME_OF: Final = {"pending": "queued", "expired": "failed"}


def check_counts(view: Readable, job: Row) -> Iterator[Finding]:
    """The counts of this job are the outcomes of its targets."""
    rows = view.execute("SELECT outcome, count(*) FROM job_targets WHERE job_id = ? GROUP BY outcome", (job["id"],))
    found = Counter(dict(rows.fetchall()))
    counted = {name: job[name] for name in COUNTED}
    if job["total"] != sum(found.values()) or any(found[name] != count for name, count in counted.items()):
        yield 9, COUNTS, f"{job['id']} counts {counted} of {job['total']}, and its targets are {dict(found)}"


def check_followed(view: Readable, command_id: str) -> Iterator[Finding]:
    """The target of this command, if it is of a job, has its status for an outcome."""
    row = view.execute(
        """SELECT t.job_id, t.outcome, c.status FROM commands c JOIN job_targets t ON t.command_id = c.id
            WHERE c.id = ?""",
        (command_id,),
    ).fetchone()
    if row is not None and row["outcome"] != _OUTCOME_OF.get(row["status"], row["status"]):
        yield 9, FOLLOWS, f"{row['job_id']}: {command_id} is {row['status']}, its target is {row['outcome']}"


def find_unfinished(view: Readable, now_ms: int) -> Iterator[Finding]:
    """What has yet to come to its end; ``now_ms`` is the gateway's time."""
    for job in _jobs(view):
        waiting, open_now = job["total"] - sum(job[name] for name in COUNTED), job["queued"] + job["delivered"]
        is_due = job["status"] == "scheduled" and job["start_at"] <= now_ms
        has_work = job["status"] == "running" and (waiting or not open_now) and job["held_until"] <= now_ms
        if is_due or has_work:
            yield 9, ENDS, f"{job['id']} is {job['status']}, {waiting} wait and {open_now} are open"
        if job["taking_back"] or (job["status"] == "cancelled" and (waiting or job["queued"])):
            yield 9, BACK, f"{job['id']}: {waiting} wait and {job['queued']} are queued"


def check_history(view: Readable) -> Iterator[Finding]:
    """All counts and outcomes; and by the order of events, what was queued after a bind or after the end of a job."""
    for job in _jobs(view):
        yield from check_counts(view, job)
    for row in view.execute("SELECT command_id FROM job_targets WHERE command_id IS NOT NULL"):
        yield from check_followed(view, row["command_id"])
    for row in view.execute(
        f"""{_queued(view)} SELECT q.job_id, q.command_id FROM queued q JOIN events e ON e.device_pk = q.device_pk
            WHERE e.type = 'device.bound' AND e.seq > q.made AND e.seq < q.queued"""  # noqa: S608 - a constant
    ):
        yield 9, FENCE, f"{row['job_id']} queues {row['command_id']} for a binding that was made after it"
    for row in view.execute(
        f"""{_queued(view)} SELECT q.job_id, q.command_id FROM queued q JOIN events e
            ON {_member(view, "job_id")} = q.job_id
            WHERE e.type IN ('job.completed', 'job.aborted', 'job.cancelled') AND e.seq < q.queued"""  # noqa: S608 - the same
    ):
        yield 9, QUIET, f"{row['job_id']} has ended, and queues {row['command_id']}"


def _jobs(view: Readable) -> list[Row]:
    return view.execute("SELECT * FROM jobs WHERE status <> 'preparing'").fetchall()


def _queued(view: Readable) -> str:
    """Each command of a job, with the numbers of the events that made the job and the command."""
    return f"""WITH queued AS (
        SELECT t.job_id, t.device_pk, t.command_id, made.seq AS made, (
            SELECT e.seq FROM events e WHERE e.device_pk = t.device_pk
                AND e.type IN ('reset.requested', 'command.created')
                AND {_member(view, "command_id")} = t.command_id) AS queued
        FROM job_targets t JOIN events made ON made.type = 'job.created'
            AND {_member(view, "job_id", "made.data")} = t.job_id
        WHERE t.command_id IS NOT NULL)"""  # noqa: S608 - constants


def _member(view: Readable, name: str, column: str = "e.data") -> str:
    dialect: SqlDialect = getattr(view, "dialect", SQLITE)
    return dialect.json_member(column, name)
