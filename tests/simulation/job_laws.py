"""Laws of jobs (invariant 9), judged by what each commit changed and by the rows that it left.

Jobs are created with a separate API key. So the events of their commands tell them from those of other callers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.store import Row
from tests.simulation.integrator import Finding
from tests.simulation.job_history import FENCE, QUIET, check_counts, check_followed, check_history

BATCH: Final = 50
"""So many more devices may have their turn after the report that reaches the threshold (contract, section 8)."""
GAP_SECONDS: Final = 1.0
"""A stall earns as much as this at most, beside the turn that was due."""
_SECONDS_A_MINUTE: Final = 60.0
_SPARE_TURNS: Final = 3
"""The turn at the start, the turn that was due before a stall, and the rest of a turn."""
_EVENT_OF: Final = {
    (None, "running"): "job.started",
    ("preparing", "running"): "job.started",
    ("scheduled", "running"): "job.started",
    ("paused", "running"): "job.resumed",
}
_ONCE: Final = "a target is done at most once"
_NOTED: Final = "a command of a job is in its target from the same commit"
_ABORTS: Final = "a job aborts at the report that reaches its threshold"
_OVERSHOOT: Final = "at most one batch follows the report that reaches the threshold"
_PACE: Final = "a job keeps to its pace"
_EVENTS: Final = "every change of a job has its event"
_KEPT: Final = "a job that was answered is kept"
_REPEATED: Final = "a repeated request makes one job"


@dataclass
class _Known:
    """What is known of a job. ``bound_since`` are devices that were bound since; ``turns`` are times and clocks."""

    bound_since: set[int] = field(default_factory=set)
    status: str = ""
    turns: list[tuple[float, int]] = field(default_factory=list)
    started: float = 0.0
    turns_after_threshold: int | None = None


class JobLaws:
    """Judges each commit. ``key_id`` is the key of those who create jobs."""

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id
        self._jobs: dict[str, _Known] = {}
        self._answered: dict[str, int] = {}
        self._reported: set[str] = set()

    @property
    def newest(self) -> str | None:
        """The job that was answered last."""
        return next(reversed(self._answered), None)

    def record_answer(self, job_id: str, total: int) -> None:
        """A request for a job was answered 201."""
        self._answered[job_id] = total

    def record_reported(self, command_ids: set[str]) -> None:
        """The broker had an acknowledgement of these commands before the cancel of their job was asked for."""
        self._reported |= command_ids

    # --- each commit --------------------------------------------------------------------------------------------------

    def check_commit(self, view: sqlite3.Connection, ledger: list[Row], now: float, clock_ahead: int) -> list[Finding]:
        """Judge one commit."""
        touched = {row["id"]: None for row in ledger if row["what"] in ("job", "target")}  # in their order
        if not touched and not (self._jobs and ledger):
            return []
        told = [(row["old"], json.loads(row["new"])) for row in ledger if row["what"] == "event"]
        findings: list[Finding] = []
        queued: set[str] = set()
        for row in ledger:
            if row["what"] == "binding" and row["new"] == "bound":
                for known in self._jobs.values():
                    known.bound_since.add(row["device_pk"])
            elif row["what"] == "job":
                findings += self._job(row, told, now)
            elif row["what"] == "target":
                findings += self._target(view, row, queued, (now, clock_ahead))
        findings += self._check_commands(told, queued)
        for row in ledger:
            if row["what"] == "command":
                findings += check_followed(view, row["id"])
        for job_id in touched:
            findings += self._check_rows(view, job_id)
        return findings

    def _job(self, row: Row, told: list[tuple[str, dict[str, Any]]], now: float) -> list[Finding]:
        before, after = row["old"], row["new"]
        if before == "preparing":
            self._jobs[row["id"]].bound_since.clear()
        known = self._jobs.setdefault(row["id"], _Known())
        known.status = after
        if after == "running" and before != "paused":
            known.started = now
        wanted = _EVENT_OF.get((before, after), f"job.{after}")
        if after not in ("preparing", "scheduled") and not any(
            kind == wanted and data["job_id"] == row["id"] for kind, data in told
        ):
            return [(9, _EVENTS, f"{row['id']} became {after}, and no event {wanted} says so")]
        return []

    def _target(
        self, view: sqlite3.Connection, row: Row, queued: set[str], when: tuple[float, int]
    ) -> Iterator[Finding]:
        job_id, (_, command_before), (outcome, command) = row["id"], _split(row["old"]), _split(row["new"])
        known = self._jobs[job_id]
        if command_before not in ("", command):
            yield 9, _ONCE, f"{job_id}: {command_before} of device {row['kind']} became {command or 'nothing'}"
        if command and not command_before:
            queued.add(command)
            yield from self._turn(view, job_id, known, command, when)
        elif outcome == "queued" and not command:
            yield 9, _NOTED, f"{job_id}: device {row['kind']} is queued without a command"

    def _turn(
        self, view: sqlite3.Connection, job_id: str, known: _Known, command: str, when: tuple[float, int]
    ) -> Iterator[Finding]:
        if known.status != "running":
            yield 9, QUIET, f"{job_id} is {known.status}, and queues {command}"
        made = view.execute("SELECT device_pk FROM commands WHERE id = ?", (command,)).fetchone()
        if made is None or made["device_pk"] in known.bound_since:
            yield 9, FENCE, f"{job_id} queues {command} for a binding that was made after it"
        known.turns.append(when)
        if known.turns_after_threshold is not None:
            known.turns_after_threshold += 1
            if known.turns_after_threshold > BATCH:
                yield 9, _OVERSHOOT, f"{job_id} queues {known.turns_after_threshold} more"

    def _check_commands(self, told: list[tuple[str, dict[str, Any]]], queued: set[str]) -> Iterator[Finding]:
        for kind, data in told:
            if data["actor"] != self._key_id:
                continue
            if kind in ("reset.requested", "command.created") and data["command_id"] not in queued:
                yield 9, _NOTED, f"{data['command_id']} is queued, and no target names it"
            if kind == "command.cancelled" and data["command_id"] in self._reported:
                detail = f"{data['command_id']} was reported before the cancel of its job was asked for"
                yield 1, "a reset with an unread acknowledgement is not cancelled", detail

    def _check_rows(self, view: sqlite3.Connection, job_id: str) -> Iterator[Finding]:
        job = view.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if job is None or job["status"] == "preparing":
            return
        yield from check_counts(view, job)
        known = self._jobs[job_id]
        if _reaches_threshold(job):
            if known.turns_after_threshold is None:
                known.turns_after_threshold = 0
            if job["status"] in ("running", "paused"):
                yield 9, _ABORTS, f"{job_id} is {job['status']} with {job['failed']} failed"
        if job["created_by"] == self._key_id:  # a bulk reset paces its commands in the outbox
            yield from _check_pace(job, known)

    # --- when all has come to rest ------------------------------------------------------------------------------------

    def check_at_rest(self, view: sqlite3.Connection) -> Iterator[Finding]:
        """At the end each job that was answered is there, no request made two, and their history is in order."""
        yield from check_history(view)
        for job_id, total in self._answered.items():
            row = view.execute("SELECT total, status FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None or row["status"] == "preparing" or row["total"] != total:
                yield 9, _KEPT, f"{job_id} was answered with {total} targets"
        for row in view.execute(
            """SELECT name, count(*) AS times FROM jobs WHERE status <> 'preparing' AND created_by = ?
                GROUP BY name HAVING times > 1""",
            (self._key_id,),
        ):
            yield 9, _REPEATED, f"'{row['name']}' is there {row['times']} times"


def _split(told: str) -> tuple[str, str]:
    outcome, _, command = told.partition(" ")
    return outcome, command


def _reaches_threshold(job: Row) -> bool:
    """Whether too many have failed. The counts are the outcomes, which was just checked."""
    done = job["executed"] + job["failed"]
    if job["failed_percent"] is None or done < job["min_done"]:
        return False
    return bool(100 * job["failed"] >= job["failed_percent"] * done)


def _check_pace(job: Row, known: _Known) -> Iterator[Finding]:
    """Within any time since the start, also across restarts, no more had their turn than the rate of its end allows.

    A clock that was set meanwhile makes no statement possible.
    """
    for first, (since, clock) in enumerate(known.turns):
        until, clock_now = known.turns[-1]
        if clock != clock_now:
            continue
        rate = _rate(job, until - known.started) / _SECONDS_A_MINUTE
        number, most = len(known.turns) - first, _SPARE_TURNS + rate * (until - since + GAP_SECONDS)
        if number > most:
            detail = f"{job['id']} gives {number} devices their turn within {until - since:.2f} s; {most:.1f} are due"
            yield 9, _PACE, detail
            return


def _rate(job: Row, seconds: float) -> float:
    """Turns per minute that the ramp has reached after so long."""
    if job["ramp_from"] is None:
        return float(job["per_minute"])
    doublings = min(int(seconds * 1_000 // job["ramp_double_ms"]), 20)
    return float(min(job["per_minute"], job["ramp_from"] << doublings))
