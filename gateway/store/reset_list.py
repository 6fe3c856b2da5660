"""Lists of a project's factory resets: filters, orders, cursors, and their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.clock import SECOND_MS, from_datetime, to_rfc3339
from gateway.models.reset_list import (
    AGES,
    OUTCOMES,
    FinishedResets,
    OpenResets,
    OpenResetsByAge,
    Reset,
    ResetStatus,
    ResetSummary,
)
from gateway.store.device_sql import moment

if TYPE_CHECKING:
    from gateway.models.reset_list import ListResets, SummarizeResets
    from gateway.store.transaction import View


class ListedReset(NamedTuple):
    """A reset of a list. Times are milliseconds since the epoch; ``outcome`` is None while it is open."""

    command_id: str
    device_id: str
    serial_number: str
    model: str
    requested_at: int
    requested_by: str | None
    requested_by_name: str | None
    reason: str | None
    recordings: str
    delivered_at: int | None
    finished_at: int | None
    outcome: str | None
    token_revoked_at: int | None
    sessions_closed_at: int | None
    retained_cleared_at: int | None
    certificate_id: str | None
    addendum_id: str | None


_CERTIFICATE: Final = "(SELECT c.id FROM certificates c WHERE c.command_id = r.command_id AND c.kind = 'first')"
_ADDENDUM: Final = """(SELECT c.id FROM certificates c WHERE c.command_id = r.command_id AND c.kind = 'addendum'
    ORDER BY c.seq DESC LIMIT 1)"""
_LISTED: Final = f"""SELECT r.command_id, d.id AS device_id, r.serial_number, r.model, r.requested_at, r.requested_by,
    r.requested_by_name, r.reason, r.recordings, r.delivered_at, r.finished_at, r.outcome,
    r.token_revoked_at, r.sessions_closed_at, r.retained_cleared_at,
    {_CERTIFICATE} AS certificate_id, {_ADDENDUM} AS addendum_id
    FROM resets r JOIN devices d ON d.pk = r.device_pk"""  # noqa: S608 - our own columns


class CursorError(Exception):
    """The cursor does not belong to this list."""


def page(view: View, project_id: str, query: ListResets, limit: int, device_pk: int | None = None) -> list[ListedReset]:
    """Return a page, and one reset more than ``limit`` when there are more.

    Raises:
        CursorError: the cursor is no reset of this project and device, or one that is not in this list.
    """
    clauses, values = _filters(project_id, query, device_pk)
    if query.cursor is not None:
        beyond = "<" if query.order == "desc" else ">"
        clauses.append(f"(r.{query.time}, r.command_id) {beyond} (?, ?)")
        values += [_position(view, project_id, query, device_pk), query.cursor]
    order = f"r.{query.time} {query.order}, r.command_id {query.order}"
    return view.records(
        ListedReset,
        f"{_LISTED} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ?",
        *values,
        limit + 1,
    )


def looks_at_many(query: ListResets) -> bool:
    """Return whether this may have to read many more resets than it shows."""
    return query.status is not None and query.status is not ResetStatus.OPEN


def _filters(project_id: str, query: ListResets, device_pk: int | None) -> tuple[list[str], list[Any]]:
    """Return the conditions that a reset must meet, and their values."""
    clauses: list[str] = ["r.project_id = ?" if device_pk is None else "r.device_pk = ?"]
    values: list[Any] = [project_id if device_pk is None else device_pk]
    if query.status is ResetStatus.OPEN:
        clauses.append("r.outcome IS NULL")
    elif query.status is not None:
        clauses.append("r.outcome = ?")
        values.append(str(query.status))
    if query.time == "finished_at":
        clauses.append("r.finished_at IS NOT NULL")
    for bound, instant in (">=", query.since), ("<", query.until):
        if instant is not None:
            clauses.append(f"r.{query.time} {bound} ?")
            values.append(from_datetime(instant))
    return clauses, values


def _position(view: View, project_id: str, query: ListResets, device_pk: int | None) -> int:
    """Return the time of the last reset of the page before."""
    row = view.one(
        "SELECT device_pk, requested_at, finished_at FROM resets WHERE command_id = ? AND project_id = ?",
        *(query.cursor, project_id),
    )
    if row is None or row[query.time] is None or device_pk not in (None, row["device_pk"]):
        raise CursorError
    return int(row[query.time])


def summary(view: View, project_id: str, query: SummarizeResets, now: int) -> ResetSummary:
    """Count the open resets by age, and those that ended within the period by outcome."""
    return ResetSummary(open=_open(view, project_id, now), finished=_finished(view, project_id, query))


def _open(view: View, project_id: str, now: int) -> OpenResets:
    older = ", ".join("count(CASE WHEN requested_at <= ? THEN 1 END)" for _ in AGES)
    (row,) = view.all(
        f"SELECT count(*), min(requested_at), {older} FROM resets WHERE project_id = ? AND outcome IS NULL",  # noqa: S608 - our own columns
        *(now - age * SECOND_MS for age in AGES),
        project_id,
    )
    total, oldest, *at_least = row
    at_least[0] = total  # also what a clock that was set back has dated ahead
    classes = [
        OpenResetsByAge(from_seconds=age, to_seconds=below, count=number - following)
        for age, below, number, following in zip(AGES, (*AGES[1:], None), at_least, (*at_least[1:], 0), strict=True)
    ]
    return OpenResets(count=total, oldest_requested_at=moment(oldest), by_age=classes)


def _finished(view: View, project_id: str, query: SummarizeResets) -> FinishedResets:
    clauses = ["project_id = ?", "finished_at IS NOT NULL"]
    values: list[Any] = [project_id]
    for bound, instant in (">=", query.since), ("<", query.until):
        if instant is not None:
            clauses.append(f"finished_at {bound} ?")
            values.append(from_datetime(instant))
    rows = view.all(
        f"SELECT outcome, count(*) AS number FROM resets WHERE {' AND '.join(clauses)} GROUP BY outcome",  # noqa: S608 - our own clauses
        *values,
    )
    numbers = {row["outcome"]: row["number"] for row in rows}
    return FinishedResets(**{each.value: numbers.get(each.value, 0) for each in OUTCOMES})


def to_model(reset: ListedReset, now: int) -> Reset:
    """Return a reset as the API shows it."""
    return Reset(**facts(reset, now))


def facts(reset: ListedReset, now: int) -> dict[str, Any]:
    """Return the fields of a reset, in the order of :class:`Reset`."""
    age = None if reset.finished_at is not None else max(0, now - reset.requested_at) // SECOND_MS
    return {
        "command_id": reset.command_id,
        "device_id": reset.device_id,
        "serial_number": reset.serial_number,
        "model": reset.model,
        "status": ResetStatus(reset.outcome or "open"),
        "requested_at": to_rfc3339(reset.requested_at),
        "requested_by": reset.requested_by,
        "requested_by_name": reset.requested_by_name,
        "reason": reset.reason,
        "recordings": reset.recordings,
        "delivered_at": moment(reset.delivered_at),
        "finished_at": moment(reset.finished_at),
        "age_seconds": age,
        "token_revoked_at": moment(reset.token_revoked_at),
        "sessions_closed_at": moment(reset.sessions_closed_at),
        "retained_cleared_at": moment(reset.retained_cleared_at),
        "certificate_id": reset.certificate_id,
        "addendum_id": reset.addendum_id,
    }
