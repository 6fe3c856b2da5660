"""SQL of thinned history: one row for each hour of a device, instead of its heartbeats of that hour.

A row has the values of the hour's last heartbeat, and the least and greatest of those that vary. Thinning moves
heartbeats out of the history and into these rows in one transaction, so each is counted once. An hour in which the
device changed hands has a row for each binding: what belongs to a person can be exported and erased alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import HOUR_MS, to_rfc3339
from gateway.models.heartbeats import HeartbeatRecord, HourRecord
from gateway.store import heartbeat_age_sql
from gateway.store.device_sql import moment

if TYPE_CHECKING:
    from gateway.store.binding_sql import BindingRecord
    from gateway.store.dialect import SqlDialect
    from gateway.store.heartbeat_sql import Period
    from gateway.store.transaction import Tx, View

NO_BINDING: Final = 0
"""The generation of heartbeats that no known binding has."""
NEVER: Final = 1 << 40
"""An hour after every other."""


class ThinnedHour(NamedTuple):
    """The heartbeats of one hour of one binding; times are milliseconds since the epoch.

    ``hour`` is the hour since the epoch in which they were received. ``first_id`` is the row number that the first of
    them had. ``firmware_version`` and the values without ``_first``, ``_min`` or ``_max`` are those of the last.
    """

    device_pk: int
    hour: int
    generation: int
    first_id: int
    heartbeats: int
    first_received_at: int
    received_at: int
    sent_at: int | None
    battery_percent: int | float | None
    battery_percent_first: int | float | None
    battery_percent_min: int | float | None
    battery_percent_max: int | float | None
    storage_used_mb: int | float | None
    storage_used_mb_first: int | float | None
    storage_used_mb_min: int | float | None
    storage_used_mb_max: int | float | None
    storage_total_mb: int | float | None
    signal_strength_dbm: int | float | None
    signal_strength_dbm_min: int | float | None
    signal_strength_dbm_max: int | float | None
    firmware_version: str | None
    device_state: str | None
    pending_recordings: int | None
    pending_recordings_max: int | None
    flags: int | None
    radio: str | None


_KEY: Final = ("device_pk", "hour", "generation")
_FROM_FIRST: Final = {"battery_percent_first": "battery_percent", "storage_used_mb_first": "storage_used_mb"}
_MERGED: Final = {"first_id": "min", "heartbeats": "sum", "first_received_at": "min"}
"""How columns of an hour that is thinned in several parts are put together; those that are not here are the last's."""
_HOURS: Final = f"SELECT {', '.join(ThinnedHour._fields)} FROM thinned_heartbeats"  # noqa: S608 - our own columns
_GENERATION: Final = f"""coalesce((SELECT max(generation) FROM bindings b WHERE b.device_pk = h.device_pk
    AND CASE WHEN b.after_heartbeat IS NULL THEN b.bound_at <= h.received_at ELSE b.after_heartbeat < h.id END
    AND CASE WHEN b.last_heartbeat IS NOT NULL THEN h.id <= b.last_heartbeat
        ELSE b.unbound_at IS NULL OR h.received_at <= b.unbound_at END), {NO_BINDING})"""  # noqa: S608 - a constant
"""The binding in which a heartbeat was received, by its marks as :mod:`gateway.store.binding_history_sql` has them."""


def _way(column: str) -> str:
    """Return how values of a column become one: ``min``, ``max``, ``sum``, ``first`` or ``last``."""
    known = _MERGED.get(column)
    if known is not None:
        return known
    ending = column.rpartition("_")[2]
    return ending if ending in ("min", "max", "first") else "last"


def _of_group(column: str) -> str:
    """Return the expression of a column over a group ``g`` with its first heartbeat ``f`` and its last ``l``."""
    if column in _KEY or column in _MERGED:
        return f"g.{column}"
    way = _way(column)
    if way in ("min", "max"):
        return f"g.{column}"
    return f"f.{_FROM_FIRST[column]}" if way == "first" else f"l.{column}"


def _aggregates() -> str:
    """Return the aggregated columns of a group."""
    said = [
        f"{way}({column.removesuffix(f'_{way}')}) AS {column}"
        for column in ThinnedHour._fields
        if (way := _way(column)) in ("min", "max") and column not in _MERGED
    ]
    return ", ".join(said)


def _merge(dialect: SqlDialect) -> str:
    """Return the assignments that add a later part of an hour to what is there."""
    return ", ".join(
        f"{column} = {_merged(dialect, column)}"
        for column in ThinnedHour._fields
        if column not in _KEY and _way(column) != "first"
    )


def _merged(dialect: SqlDialect, column: str) -> str:
    before, added = f"thinned_heartbeats.{column}", f"excluded.{column}"
    way = _way(column)
    if way == "sum":
        return f"{before} + {added}"
    if way == "last":
        return added
    smaller_or_greater = dialect.least if way == "min" else dialect.greatest
    return smaller_or_greater(f"coalesce({before}, {added})", f"coalesce({added}, {before})")


_GROUPS: Final = f"""SELECT device_pk, received_at / {HOUR_MS} AS hour, generation, min(id) AS first_id,
    max(id) AS last_id, count(*) AS heartbeats, min(received_at) AS first_received_at, {_aggregates()}
    FROM (SELECT h.*, {_GENERATION} AS generation FROM heartbeats h WHERE h.id IN ({{}}) {{}}) AS due
    GROUP BY 1, 2, 3"""  # noqa: S608 - our own columns


def thin(tx: Tx, before: int, limit: int) -> int:
    """Thin at most ``limit`` heartbeats that were received before then; return how many.

    They are those that :func:`gateway.store.heartbeat_age_sql.prune` would remove.
    """
    due = heartbeat_age_sql.due(tx, before, limit)
    if due is None:
        return 0
    groups = _GROUPS.format(due.sql, due.within("h.id"))
    tx.run(
        f"""INSERT INTO thinned_heartbeats ({", ".join(ThinnedHour._fields)})
            SELECT {", ".join(map(_of_group, ThinnedHour._fields))} FROM ({groups}) AS g
            JOIN heartbeats f ON f.id = g.first_id {due.within("f.id")}
            JOIN heartbeats l ON l.id = g.last_id {due.within("l.id")} WHERE 1 = 1
            ON CONFLICT (device_pk, hour, generation) DO UPDATE SET {_merge(tx.dialect)}""",  # noqa: S608 - our own columns
        *due.values,
    )
    return heartbeat_age_sql.remove(tx, due)


class Place(NamedTuple):
    """Where a page ended: the heartbeat or hour that was shown last."""

    received_at: int
    id: int


def page(
    view: View, device_pk: int, window: Period, *, after: Place | None, limit: int, every: int | None
) -> list[ThinnedHour]:
    """Return hours, newest first, whose last heartbeat was received in this period, after a place of the list.

    With ``every`` it has only the newest of each so many milliseconds of the clock.
    """
    below = (NEVER, 0) if after is None else _position(view, device_pk, after)
    if every is None:
        return _hours(view, device_pk, window, below, limit)
    if after is not None:
        window = _before_step(window, after.received_at, every)
    rows: list[ThinnedHour] = []
    while len(rows) < limit and (found := _hours(view, device_pk, window, below, 1)):
        rows += found
        window = _before_step(window, found[0].received_at, every)
    return rows


def _before_step(window: Period, at: int, every: int) -> Period:
    """Return the window before the step of the clock in which this was received."""
    return window._replace(until=min(window.until, at - at % every))


def _position(view: View, device_pk: int, after: Place) -> tuple[int, int]:
    """Return hour and generation below which the list goes on.

    After a heartbeat it goes on with what was thinned of its hour.
    """
    hour = after.received_at // HOUR_MS
    generation = view.value(
        "SELECT generation FROM thinned_heartbeats WHERE device_pk = ? AND hour = ? AND first_id = ?",
        *(device_pk, hour, after.id),
    )
    return (hour + 1, NO_BINDING) if generation is None else (hour, generation)


def _hours(view: View, device_pk: int, window: Period, below: tuple[int, int], limit: int) -> list[ThinnedHour]:
    return view.records(
        ThinnedHour,
        f"""{_HOURS} WHERE device_pk = ? AND (hour, generation) < (?, ?) AND hour BETWEEN ? AND ?
            AND received_at >= ? AND received_at < ? ORDER BY hour DESC, generation DESC LIMIT ?""",
        *(device_pk, *below, window.since // HOUR_MS, window.until // HOUR_MS, window.since, window.until, limit),
    )


def of_binding(view: View, binding: BindingRecord, *, below: int, limit: int) -> list[ThinnedHour]:
    """Return hours of one binding, newest first, below the hour ``below``."""
    return view.records(
        ThinnedHour,
        f"{_HOURS} WHERE device_pk = ? AND generation = ? AND hour < ? ORDER BY hour DESC LIMIT ?",
        *(binding.device_pk, binding.generation, below, limit),
    )


def delete_of_binding(tx: Tx, binding: BindingRecord, limit: int) -> int:
    """Delete up to ``limit`` hours of a binding; return how many."""
    hours = [row.hour for row in of_binding(tx, binding, below=NEVER, limit=limit)]
    if not hours:
        return 0
    return tx.run(
        "DELETE FROM thinned_heartbeats WHERE device_pk = ? AND generation = ? AND hour >= ?",
        *(binding.device_pk, binding.generation, hours[-1]),
    ).rowcount


def prune(tx: Tx, before: int, limit: int) -> int:
    """Delete at most ``limit`` hours that ended before then; return how many."""
    oldest = "SELECT device_pk, hour, generation FROM thinned_heartbeats WHERE hour < ? ORDER BY hour LIMIT ?"
    return tx.run(
        f"DELETE FROM thinned_heartbeats WHERE (device_pk, hour, generation) IN ({oldest})",  # noqa: S608 - a constant
        *(before // HOUR_MS, limit),
    ).rowcount


def to_record(hour: ThinnedHour) -> HeartbeatRecord:
    """Return an hour as the API shows it: as its last heartbeat, with what it stands for."""
    said = hour._asdict()
    facts = {name: value for name, value in said.items() if name in HourRecord.model_fields}
    summary = HourRecord.model_validate({**facts, "first_received_at": to_rfc3339(hour.first_received_at)})
    reported = {name: value for name, value in said.items() if name in HeartbeatRecord.model_fields}
    times = {"received_at": to_rfc3339(hour.received_at), "sent_at": moment(hour.sent_at)}
    radio = None if hour.radio is None else [hour.radio]
    return HeartbeatRecord.model_validate({**reported, **times, "connection_type": radio, "hour": summary})
