"""SQL of the old end of the history of heartbeats: what is due, and how it leaves.

Rows are deleted. On PostgreSQL those of a day leave by a mark, and their partition is dropped later
(:mod:`gateway.store.heartbeat_partition_sql`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import DAY_MS
from gateway.models.fields import MAX_NUMBER
from gateway.store import heartbeat_partition_sql as partitions

if TYPE_CHECKING:
    from gateway.store.heartbeat_partition_sql import Ends, Partition
    from gateway.store.transaction import Tx, View

    _Waiting = tuple[Partition, Ends]
    """A partition with rows that have not left yet, and its ends."""

_SAMPLES: Final = 256
_RECEIVED: Final = "(SELECT received_at FROM heartbeats WHERE id >= {} {{within}} ORDER BY id LIMIT 1)"
"""When the first heartbeat from a row number on was received."""
_ENDS: Final = """SELECT (SELECT min(id) FROM heartbeats WHERE id >= 0 {within}) AS first,
    (SELECT max(id) FROM heartbeats WHERE id >= 0 {within}) AS last"""
_SAMPLE: Final = f"""WITH RECURSIVE samples (sample) AS (
        SELECT CAST(?1 AS BIGINT) UNION ALL SELECT sample + ?2 FROM samples WHERE sample + ?2 <= ?3)
    SELECT min(sample) FROM samples WHERE {_RECEIVED.format("sample")} < ?4"""  # noqa: S608 - a constant
"""The first sample that was received before an instant."""
_HALF: Final = "(not_due + due) / 2"
_IS_DUE: Final = f"{_RECEIVED.format(_HALF)} < ?3"
_SEARCH: Final = f"""WITH RECURSIVE halved (not_due, due) AS (
        SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT) UNION ALL
        SELECT CASE WHEN {_IS_DUE} THEN not_due ELSE {_HALF} END, CASE WHEN {_IS_DUE} THEN {_HALF} ELSE due END
        FROM halved WHERE due - not_due > 1)
    SELECT min(due) FROM halved"""  # noqa: S608 - a constant
"""The first due row number after one that is not due: their distance is halved until they are neighbours."""


class _Span(NamedTuple):
    """Row numbers from ``first`` on and before ``end``."""

    first: int
    end: int

    def within(self, column: str) -> str:
        """Return a further condition that a column with such a number meets, for the planner of PostgreSQL."""
        return "" if self == _ALL else f"AND {column} >= {self.first} AND {column} < {self.end}"


_ALL: Final = _Span(0, MAX_NUMBER)


class Due(NamedTuple):
    """The oldest heartbeats of the history: a query of their row numbers, and its values.

    ``span`` is where they lie. ``departs``: they leave by a mark at this number.
    """

    sql: str
    values: tuple[int, ...]
    span: _Span = _ALL
    departs: int | None = None

    def within(self, column: str) -> str:
        """Return a further condition that a column with such a row number meets."""
        return self.span.within(column)


def due(tx: Tx, before: int, limit: int) -> Due | None:
    """Return at most ``limit`` heartbeats that were received before then, or None when nothing is due.

    Rows lie in the order of arrival, so the oldest are at the beginning. Whether anything is due costs a look there and
    :data:`_SAMPLES` more, however long the table. An index by time would be written at each heartbeat. The samples find
    what is due behind rows that a wrong clock dated ahead, once that part of the table is longer than the distance of
    two samples.
    """
    if not tx.dialect.partitioned:
        return _rows(tx, _ALL, before, limit)
    last = partitions.last_given(tx)
    ahead: _Waiting | None = None
    for each in partitions.waiting(tx, partitions.departed(tx)):
        found = _of_partition(tx, each, last, before, limit)
        if found is None:
            ahead = ahead or each
        elif ahead is None or found.departs is None:
            return found
        else:  # the mark would pass what a wrong clock dated ahead
            return _of_partition(tx, ahead, last, MAX_NUMBER, limit)
    return None


def remove(tx: Tx, due: Due) -> int:
    """Let these heartbeats leave the history; return how many."""
    rows = f"SELECT device_pk, received_at / {DAY_MS}, id FROM heartbeats WHERE id IN ({due.sql}) {due.within('id')}"  # noqa: S608 - constants
    tx.run(f"DELETE FROM history_days WHERE (device_pk, day, first_id) IN ({rows})", *due.values)  # noqa: S608 - the same
    chosen = f"FROM heartbeats WHERE id IN ({due.sql}) {due.within('id')}"
    if due.departs is None:
        return tx.run(f"DELETE {chosen}", *due.values).rowcount
    partitions.depart(tx, due.departs)
    number: int = tx.value(f"SELECT count(*) {chosen}", *due.values)
    return number


def prune(tx: Tx, before: int, limit: int) -> int:
    """Remove at most ``limit`` heartbeats that were received before then; return how many."""
    oldest = due(tx, before, limit)
    return 0 if oldest is None else remove(tx, oldest)


def _of_partition(tx: Tx, waiting: _Waiting, last: int, before: int, limit: int) -> Due | None:
    partition, ends = waiting
    span = _Span(partition.first, partition.end)
    if partitions.is_deleted_by_row(tx.rules, partition, ends, last):
        found = _rows(tx, span, before, limit)
    else:
        found = _beginning(tx, partition, ends, before, limit)
    return None if found is None else found._replace(span=span)


def _beginning(view: View, partition: Partition, ends: Ends, before: int, limit: int) -> Due | None:
    """Return the rows up to the last one that is due, of the next rows of a partition."""
    if min(ends.first_at, ends.last_at) >= before:
        return None
    rows = "SELECT id, received_at FROM heartbeats WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    last: int | None = view.value(
        f"SELECT max(id) FROM ({rows}) AS oldest WHERE received_at < ?",  # noqa: S608 - a constant command
        *(ends.first, partition.end, limit, before),
    )
    if last is None:
        return None
    return Due("SELECT id FROM heartbeats WHERE id >= ? AND id <= ?", (ends.first, last), departs=last)


def _rows(view: View, span: _Span, before: int, limit: int) -> Due | None:
    start = _first_due(view, span, before)
    if start is None:
        return None
    some = "SELECT id, received_at FROM heartbeats WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    return Due(f"SELECT id FROM ({some}) AS oldest WHERE received_at < ?", (start, span.end, limit, before))  # noqa: S608 - a constant command


def _first_due(view: View, span: _Span, before: int) -> int | None:
    """Return the id where a run of heartbeats from before then begins, or None when no sample is in such a run.

    It takes three statements. A write asks this while it holds the registry's lock.
    """
    within = span.within("id")
    row = view.one(_ENDS.format(within=within))
    if row is None or row["first"] is None:
        return None
    first, last = row["first"], row["last"]
    step = max(1, (last - first) // _SAMPLES)
    due: int | None = view.value(_SAMPLE.format(within=within), first, step, last, before)
    if due is None:
        return None
    found: int = view.value(_SEARCH.format(within=within), max(first - 1, due - step), due, before)
    return found
