"""SQL of the targets of jobs: what becomes of each device."""

from __future__ import annotations

import json
from functools import partial
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.models.jobs import COUNTED, ENDS, Outcome, SkipReason
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.store.transaction import Tx, View


HIGHEST_POSITION: Final = 2**31
"""Above every position; a cursor beyond it is as good as this one."""


class NewTarget(NamedTuple):
    """A device of a new job, as it was found. Without a row in this project it has its ``unknown_id`` alone."""

    device_pk: int | None
    unknown_id: str | None
    binding_generation: int | None
    reason: SkipReason | None = None


class TargetRecord(NamedTuple):
    """A target; ``outcome`` is a value of ``Outcome``, ``changed_at`` milliseconds since the epoch."""

    job_id: str
    position: int
    device_pk: int | None
    unknown_id: str | None
    binding_generation: int | None
    outcome: str
    reason: str | None
    command_id: str | None
    changed_at: int | None


class ListedTarget(NamedTuple):
    """A target of a list, with its device: None where that is unknown."""

    position: int
    outcome: str
    reason: str | None
    command_id: str | None
    changed_at: int | None
    unknown_id: str | None
    device_id: str | None
    serial_number: str | None


class ProgressPoint(NamedTuple):
    """How many targets were final ``at`` a moment (milliseconds since the epoch), and how many of them had failed."""

    at: int
    done: int
    failed: int


_TARGETS: Final = f"SELECT {columns(TargetRecord, 't')} FROM job_targets t"  # noqa: S608 - our own columns
_LISTED: Final = f"""SELECT {columns(ListedTarget, "t", device_id="d.id", serial_number="d.serial_number")}
    FROM job_targets t LEFT JOIN devices d ON d.pk = t.device_pk"""  # noqa: S608 - the same


_WITH_OUTCOME: Final = """WHERE t.job_id = ? AND (t.outcome, t.position) > (?, ?) AND t.outcome <= ?
    ORDER BY t.outcome, t.position LIMIT ?"""
"""Targets with one outcome after a position, which only the index by outcome has in this order.

With ``outcome = ?`` both engines may read along the primary key instead. At the end of a job of 100,000 targets that
took 0.17 s for each turn.
"""


_FINAL: Final = ", ".join(f"'{each}'" for each in ENDS)


def insert(tx: Tx, job_id: str, first: int, targets: Sequence[NewTarget]) -> None:
    """Insert targets from this position on: those with a reason are skipped, the others wait.

    One statement inserts them all. PostgreSQL takes three times as long for a statement each.
    """
    member = partial(tx.dialect.member, "given.item")
    tx.run(
        f"""INSERT INTO job_targets (job_id, position, device_pk, unknown_id, binding_generation, outcome, reason,
                changed_at)
            SELECT ?, ? + given.place, CAST({member(0)} AS BIGINT), {member(1)}, CAST({member(2)} AS BIGINT),
                CASE WHEN {member(3)} IS NULL THEN 'waiting' ELSE 'skipped' END, {member(3)},
                CASE WHEN {member(3)} IS NULL THEN NULL ELSE CAST(? AS BIGINT) END
            FROM ({tx.dialect.lists}) AS given""",  # noqa: S608 - our own expressions
        *(job_id, first, tx.now, json.dumps(targets)),
    )


def by_command(view: View, command_id: str) -> TargetRecord | None:
    """Return the target whose command this is."""
    return view.record(TargetRecord, f"{_TARGETS} WHERE t.command_id = ?", command_id)


def find(view: View, job_id: str, position: int) -> TargetRecord | None:
    """Return the target at this position."""
    return view.record(TargetRecord, f"{_TARGETS} WHERE t.job_id = ? AND t.position = ?", job_id, position)


def with_outcome(view: View, job_id: str, outcome: Outcome, limit: int, *, after: int = -1) -> list[TargetRecord]:
    """Return the first targets with this outcome after this position."""
    return view.records(
        TargetRecord,
        f"{_TARGETS} {_WITH_OUTCOME}",
        *(job_id, outcome, after, outcome, limit),
    )


def set_outcome(
    tx: Tx, job_id: str, position: int, outcome: Outcome, *, reason: str | None, command_id: str | None
) -> None:
    """Store what became of a target."""
    tx.run(
        """UPDATE job_targets SET outcome = ?, reason = ?, command_id = ?, changed_at = ?
            WHERE job_id = ? AND position = ?""",
        *(outcome, reason, command_id, tx.now, job_id, position),
    )


def cancel_waiting(tx: Tx, job_id: str, limit: int) -> int:
    """Cancel the first targets that still wait; return how many."""
    return tx.run(
        f"""UPDATE job_targets SET outcome = 'cancelled', changed_at = ? WHERE job_id = ? AND position IN
            (SELECT t.position FROM job_targets t {_WITH_OUTCOME})""",  # noqa: S608 - a constant
        *(tx.now, job_id, job_id, Outcome.WAITING, -1, Outcome.WAITING, limit),
    ).rowcount


def progress(view: View, job_id: str, start: int, points: int) -> list[ProgressPoint]:
    """Return how far the job was at each of at most so many moments since its ``start``, oldest first.

    Targets that were final before, such as unknown devices, count at the first. This reads all targets of the job.
    """
    ended = f"FROM job_targets t WHERE t.job_id = ? AND t.outcome IN ({_FINAL})"
    last: int | None = view.value(f"SELECT max(t.changed_at) {ended}", job_id)
    if last is None:
        return []
    width = max(1, -(-(last - start + 1) // points))
    rows = view.all(
        f"""SELECT CASE WHEN t.changed_at < ? THEN 0 ELSE (t.changed_at - ?) / ? END AS period,
                count(*) AS done, sum(CASE WHEN t.outcome = 'failed' THEN 1 ELSE 0 END) AS failed
            {ended} GROUP BY 1 ORDER BY 1""",
        *(start, start, width, job_id),
    )
    found, done, failed = [], 0, 0
    for row in rows:
        done, failed = done + row["done"], failed + row["failed"]
        found.append(ProgressPoint(min(start + (row["period"] + 1) * width, max(start, last)), done, failed))
    return found


def page(view: View, job_id: str, outcomes: Collection[Outcome], after: int, limit: int) -> list[ListedTarget]:
    """Return a page after this position, in the order of the turns, and one more than ``limit`` if there are more.

    Each outcome is read by its index, so a rare one is found at once among 100,000 targets.
    """
    if not outcomes:
        return view.records(
            ListedTarget,
            f"{_LISTED} WHERE t.job_id = ? AND t.position > ? ORDER BY t.position LIMIT ?",
            *(job_id, after, limit + 1),
        )
    found = (
        view.records(
            ListedTarget,
            f"{_LISTED} {_WITH_OUTCOME}",
            *(job_id, outcome, after, outcome, limit + 1),
        )
        for outcome in set(outcomes)
    )
    return list(islice(merge(*found, key=attrgetter("position")), limit + 1))


def delete(tx: Tx, job_id: str, limit: int) -> int:
    """Delete some targets of a job; return how many."""
    return tx.run(
        """DELETE FROM job_targets WHERE job_id = ?1 AND position IN
            (SELECT position FROM job_targets WHERE job_id = ?1 ORDER BY position LIMIT ?2)""",
        *(job_id, limit),
    ).rowcount


def counted(view: View, job_id: str) -> dict[str, int]:
    """Return the number of targets of a job by outcome, from the targets themselves."""
    rows = view.all("SELECT outcome, count(*) FROM job_targets WHERE job_id = ? GROUP BY outcome", job_id)
    return {row[0]: row[1] for row in rows}


def miscounted(view: View) -> list[str]:
    """Return jobs whose counts differ from the outcomes of their targets. It reads every target."""
    found = ", ".join(f"count(*) FILTER (WHERE outcome = '{name}') AS {name}" for name in COUNTED)
    differs = " OR ".join(f"j.{name} <> coalesce(t.{name}, 0)" for name in COUNTED)
    of_targets = f"SELECT job_id, count(*) AS total, {found} FROM job_targets GROUP BY job_id"  # noqa: S608 - of an enum
    rows = view.all(
        f"""SELECT j.id FROM jobs j LEFT JOIN ({of_targets}) AS t ON t.job_id = j.id
            WHERE j.status <> 'preparing' AND (j.total <> coalesce(t.total, 0) OR {differs})
            ORDER BY j.id"""  # noqa: S608 - members of an enum
    )
    return [row["id"] for row in rows]
