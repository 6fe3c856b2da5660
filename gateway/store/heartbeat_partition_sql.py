"""SQL of the partitions of ``heartbeats`` on PostgreSQL: one for each day, dropped as a whole.

The key is the row number, by which the history is read. A day begins with the first number of a partition. So numbers
stay in the order of arrival whatever the clock does. A partition that is missing delays nothing: the numbers go on in
the newest one, which then holds more than a day.

Rows that leave the history stay in their partition until all of it has left. ``meta`` holds the greatest number that
has left, and no reader looks at those up to it. Partitions with more than a day, such as the one with the rows of
before the partitions, would wait too long for that: their rows are deleted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import DAY_MS
from gateway.store import key_sql
from gateway.store.errors import PostgresError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.transaction import Rules, Tx, View

SIZE: Final = 100_000_000_000
"""Row numbers of a partition: over a million heartbeats a second. They stay exact in JSON for 246 years."""
DAYS_TOGETHER: Final = 31
"""So many days of raw history have a partition each. Of a longer one each holds more days: planning reads them all."""
MOST: Final = 100
"""Partitions, at most: gateways whose clocks differ by days could begin one with each batch."""
LOCK_MS: Final = 200
"""Other statements about heartbeats wait so long for a change of the partitions, at most."""
BLOCK: Final = 1_000
"""Numbers that a batch draws at once beside others, whether it uses them or not. It divides :data:`SIZE`."""
_SEQUENCE: Final = "heartbeats_id_seq"
_SKIP_BLOCKS: Final = f"""SELECT count(nextval('{_SEQUENCE}')) FROM generate_series(1,
    least(1000000, ? / {BLOCK} - nextval('{_SEQUENCE}')))"""  # noqa: S608 - constants
_DEPARTED: Final = "heartbeats_departed"
_NAME: Final = "heartbeats_"
_PARTITIONS: Final = f"""SELECT substr(c.relname, {len(_NAME) + 1})::bigint AS number
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'heartbeats'::regclass ORDER BY 1"""  # noqa: S608 - constants
_LAST: Final = """SELECT greatest((SELECT max(id) FROM heartbeats), (SELECT max(history_id) FROM health),
    (SELECT max(last_heartbeat) FROM bindings), (SELECT max(value::bigint) FROM meta WHERE key = ?), 0)"""
"""Marks of devices and bindings may name rows that are gone. Their numbers are never given again."""
_LAST_BLOCK: Final = f"greatest(({_LAST}) / {BLOCK}, 1)"
_END: Final = f"""LATERAL (SELECT id, received_at FROM heartbeats
        WHERE id >= greatest(number * {SIZE}, ?1) AND id < (number + 1) * {SIZE} ORDER BY id {{}} LIMIT 1)"""  # noqa: S608 - constants
_WAITING: Final = f"""SELECT number, first.id, first.received_at, last.id, last.received_at
    FROM ({_PARTITIONS}) AS partitions, {_END.format("")} AS first, {_END.format("DESC")} AS last
    ORDER BY number"""  # noqa: S608 - constants
"""One statement for all: a write asks this while it holds the registry's lock."""
_NEWEST_OF_ALL: Final = f"""SELECT given.last, (SELECT received_at FROM heartbeats
        WHERE id >= given.last / {SIZE} * {SIZE} AND id < (given.last / {SIZE} + 1) * {SIZE}
        ORDER BY id LIMIT 1) AS began
    FROM ({_LAST}) AS given (last)"""  # noqa: S608 - constants
_NEWEST: Final = """SELECT (SELECT max(id) FROM heartbeats WHERE id >= ?) AS last,
    (SELECT received_at FROM heartbeats WHERE id >= ? AND id < ? ORDER BY id LIMIT 1) AS began"""


class Partition(NamedTuple):
    """A partition: row numbers from ``first`` on and before ``end``."""

    number: int

    @property
    def first(self) -> int:
        """Return its least row number."""
        return self.number * SIZE

    @property
    def end(self) -> int:
        """Return the first number after it."""
        return self.first + SIZE

    @property
    def next(self) -> Partition:
        """Return the one after it."""
        return Partition(self.number + 1)

    @property
    def table(self) -> str:
        """Return its name as a table."""
        return f"{_NAME}{self.number}"


class Ends(NamedTuple):
    """The first and the last row that are left of a partition, and when they were received (ms since the epoch)."""

    first: int
    first_at: int
    last: int
    last_at: int


def of(heartbeat_id: int) -> Partition:
    """Return the partition of a row number."""
    return Partition(heartbeat_id // SIZE)


def existing(view: View) -> list[Partition]:
    """Return the partitions, in order."""
    return [Partition(row["number"]) for row in view.all(_PARTITIONS)]


def departed(view: View) -> int:
    """Return the greatest row number that has left the history, 0 for none. Its row may be there still."""
    return int(key_sql.meta(view, _DEPARTED) or 0) if view.dialect.partitioned else 0


def depart(tx: Tx, up_to: int) -> None:
    """Let the rows up to this number leave the history. Nothing is deleted."""
    key_sql.set_meta(tx, _DEPARTED, str(up_to))


def next_id(tx: Tx, known: int, count: int) -> int:
    """Return the first of so many new row numbers. A new day, by this gateway's clock, begins a new partition.

    ``known`` is a number that was given, which saves to look at each partition; 0: none is known. The caller holds the
    lock of the registry.
    """
    last, began = _newest(tx, known)
    partition = of(last)
    if began is None:  # it is empty, and may have been dropped
        return _begin(tx, partition, last)
    if _is_over(tx, began) or of(last + count) != partition:
        return _begin(tx, partition.next, last)
    return last + 1


def next_block(tx: Tx, known: int) -> int:
    """Return the first number of a block that no other transaction uses.

    The caller has locked the rows of the devices. So the numbers of a device are in the order of its chain: a block
    that is drawn later is higher, and higher than all rows that were committed before. A write that had the registry
    for itself may have used the next blocks. Then these are skipped. A new day begins with such a write.
    """
    while True:
        first = BLOCK * int(tx.value(f"SELECT nextval('{_SEQUENCE}')"))
        last, _ = _newest(tx, known)
        if first > last:
            return first
        tx.value(_SKIP_BLOCKS, last)


def _newest(view: View, known: int) -> tuple[int, int | None]:
    """Return the last number that was given, and when the first row of its partition was received, if it has any."""
    partition = of(known)
    row = view.one(_NEWEST, known, partition.first, partition.end) if known else None
    if row is not None and row["last"] is not None and of(row["last"]) == partition:
        return row["last"], row["began"]
    last, began = view.all(_NEWEST_OF_ALL, _DEPARTED)[0]
    return last, began


def waiting(view: View, above: int) -> list[tuple[Partition, Ends]]:
    """Return the partitions that hold rows above a row number, in order, and the ends of those rows."""
    return [(Partition(number), Ends(*ends)) for number, *ends in view.all(_WAITING, above + 1)]


def last_given(view: View) -> int:
    """Return the greatest row number that was ever given, of those that are known; 0 for none."""
    return int(view.value(_LAST, _DEPARTED))


def is_deleted_by_row(rules: Rules, partition: Partition, ends: Ends, last: int) -> bool:
    """Return whether rows of a partition are deleted: it is still written, or holds more days than it should."""
    return partition == of(last) or abs(ends.last_at - ends.first_at) > (_days(rules) + 1) * DAY_MS


def finish_copy(tx: Tx) -> None:
    """Store when the newest heartbeat of each device was sent, and let blocks begin above all that are there."""
    tx.run(f"SELECT setval('{_SEQUENCE}', {_LAST_BLOCK})", _DEPARTED)
    tx.run(
        """UPDATE health SET history_sent_at = newest.sent_at
            FROM (SELECT device_pk, max(sent_at) AS sent_at FROM heartbeats GROUP BY device_pk) AS newest
            WHERE newest.device_pk = health.device_pk"""
    )


def maintain(tx: Tx) -> int:
    """Make the next partition, begin it if its day has come, and drop those that have left the history.

    Return how many were dropped. What another session keeps locked for longer than :data:`LOCK_MS` is left for the next
    time.
    """
    if not tx.dialect.partitioned:
        return 0
    last, began = _newest(tx, 0)
    newest, kept = of(last), {each for each, _ in waiting(tx, departed(tx))}
    dropped = 0
    for each in existing(tx):
        if each < newest and each not in kept:
            if not _try(tx, partial(tx.connection.execute, f"DROP TABLE {each.table}")):
                break
            dropped += 1
    for each in (newest, newest.next):
        _ensure(tx, each)
    if began is not None and _is_over(tx, began):
        _begin(tx, newest.next, last)
    return dropped


def _days(rules: Rules) -> int:
    """Return how many days a partition holds."""
    return -(-min(rules.heartbeat_raw_days, rules.heartbeat_history_days) // DAYS_TOGETHER)


def _is_over(tx: Tx, began: int) -> bool:
    """Return whether the days of a partition are over, or the clock was set back by more than a day.

    Clocks of two gateways differ by seconds. Around midnight that must not begin a partition with each batch.
    """
    today, first = tx.now // DAY_MS, began // DAY_MS
    return today >= first + _days(tx.rules) or today < first - 1


def _begin(tx: Tx, partition: Partition, last: int) -> int:
    """Return the first number of a partition, which is made if need be; where that fails, go on after the last one."""
    if not _ensure(tx, partition):
        return last + 1
    if last < partition.first:  # this write has the registry for itself; setval would outlast it when it is undone
        tx.run(f"ALTER SEQUENCE {_SEQUENCE} RESTART WITH {partition.first // BLOCK + 1}")
    return max(partition.first, last + 1)


def _ensure(tx: Tx, partition: Partition) -> bool:
    """Make a partition unless it is there; return whether it is now."""
    there = existing(tx)
    return partition in there or (len(there) < MOST and _try(tx, partial(_create, tx, partition)))


def _create(tx: Tx, partition: Partition) -> None:
    """Make a partition beside the table, then attach it: that waits for no reader."""
    name = partition.table
    for statement in (
        f"CREATE TABLE {name} (LIKE heartbeats)",
        f"CREATE UNIQUE INDEX {name}_once ON {name} (sent_at, device_pk) WHERE sent_at IS NOT NULL",
        f"ALTER TABLE heartbeats ATTACH PARTITION {name} FOR VALUES FROM ({partition.first}) TO ({partition.end})",
    ):
        tx.connection.execute(statement)


def _try(tx: Tx, change: Callable[[], object]) -> bool:
    """Change the partitions unless that fails; return whether it was done. The transaction goes on in any case.

    Raises:
        PostgresError: the connection was lost.
    """
    tx.connection.execute("SAVEPOINT partition")
    try:
        tx.connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
        change()
        tx.connection.execute("SET LOCAL lock_timeout TO DEFAULT")
    except PostgresError:
        tx.connection.execute("ROLLBACK TO partition")
        return False
    tx.connection.execute("RELEASE partition")
    return True
