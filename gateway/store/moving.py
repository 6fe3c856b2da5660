"""Move of a registry from SQLite to PostgreSQL: table by table in the order of the primary keys, then compared.

Each batch is one transaction. Rows are copied in the order of their keys, so the greatest key in the target is where an
interrupted move goes on. Until the comparison is done, a mark among the schema steps keeps gateways from the target. It
names the state of the source: a source that has changed meanwhile is refused.
"""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.text import count
from gateway.errors import StoreError
from gateway.store import device_count_sql, epoch_sql, heartbeat_partition_sql, schema
from gateway.store.errors import DATABASE_ERRORS, store_error
from gateway.store.opening import require_registry
from gateway.store.sqlite.connection import DATABASE_NAME, connect
from gateway.store.transaction import Context, Tx, View, rollback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.store.engine import DatabaseConnection
    from gateway.store.postgres.connection import PostgresConnection
    from gateway.store.postgres.engine import PostgresEngine
    from gateway.store.sqlite.connection import SqliteConnection

BATCH: Final = 20_000
SAMPLE: Final = 20_000
"""Rows of the largest table that a dry run copies and takes back, to measure how long the move takes."""
LEFT: Final = ("gateways", "leases", "device_counts", "device_states")
"""Tables that are not copied: those of running processes begin empty, counts and states are made in the target."""
_OWN: Final = ("sqlite_", "_sqlite_", "device_search")
_NUL: Final = "\0"
_INSTEAD_OF_NUL: Final = "\ufffd"
_HASH_BYTES: Final = 8

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table, its columns, and those of its primary key, in order."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    rows: int

    def page(self, after: Row | None) -> tuple[str, Row]:
        """Return the query of the next batch after this key, and its values."""
        key, marks = ", ".join(self.key), ", ".join("?" * len(self.key))
        where = "" if after is None else f"WHERE ({key}) > ({marks}) "
        sql = f"SELECT {', '.join(self.columns)} FROM {self.name} {where}ORDER BY {key} LIMIT {BATCH}"  # noqa: S608
        return sql, after or ()

    def key_of(self, row: Row) -> Row:
        """Return the key of a row."""
        return tuple(row[self.columns.index(name)] for name in self.key)


class Contents(NamedTuple):
    """Number of rows, and the sum of their hashes, which does not depend on their order."""

    rows: int
    checksum: str


@dataclass(frozen=True)
class Moved:
    """What was moved, by table, and in how many texts a NUL was replaced, which PostgreSQL does not store."""

    tables: dict[str, Contents]
    replaced: int
    resumed: bool


@dataclass(frozen=True)
class Plan:
    """What a move would do: rows by table, bytes of the file, and the estimated time (seconds)."""

    tables: dict[str, int]
    bytes: int
    seconds: float


class Move:
    """A move from this data directory. The caller holds its lock, so that no gateway runs on it."""

    def __init__(
        self, data_dir: Path, target: PostgresEngine, progress: Callable[[int], object] = lambda _: None
    ) -> None:
        self._file = require_registry(data_dir)
        self._target = target
        self._progress = progress
        self._replaced = 0

    def plan(self) -> Plan:
        """Measure how long the move takes. Nothing stays in the target.

        Raises:
            StoreError: source or target cannot be used.
        """
        with _translated(), closing(self._source()) as source, closing(self._target.open_for_move(None)) as target:
            tables = list(_tables(source))
            largest = max(tables, key=lambda each: each.rows)
            began = time.monotonic()
            sampled = self._sample(largest, source, target)
            per_row = (time.monotonic() - began) / max(1, sampled)
        rows = {each.name: each.rows for each in tables}
        return Plan(rows, self._file.stat().st_size, round(per_row * sum(rows.values()), 1))

    def run(self) -> Moved:
        """Copy what is not there yet, compare everything, and open the target to gateways.

        Raises:
            ConflictError: the target holds a registry, or the source has changed since the move began.
            StoreError: source or target cannot be used, or they differ in the end.
        """
        with (
            _translated(),
            closing(self._source()) as source,
            closing(self._target.open_for_move(_state(source, self._file))) as target,
        ):
            return self._run(source, target)

    def total(self) -> int:
        """Return the number of rows that are copied and compared.

        Raises:
            StoreError: the source cannot be used.
        """
        with _translated(), closing(self._source()) as source:
            return 2 * sum(each.rows for each in _tables(source))

    def _run(self, source: SqliteConnection, target: PostgresConnection) -> Moved:
        tables, resumed = list(_tables(source)), False
        target.begin()
        target.execute("DELETE FROM brokers WHERE NOT EXISTS (SELECT 1 FROM broker_facts)")  # one comes with the schema
        target.execute("COMMIT")
        for each in tables:
            resumed |= self._copy(each, source, target)
        compared = {each.name: self._compared(each, source, target) for each in tables}
        target.begin()
        _set_numbers(source, target)
        tx = Tx(target, Context())
        device_count_sql.recount(tx)
        heartbeat_partition_sql.finish_copy(tx)
        self._target.finish_move(target)
        target.execute("COMMIT")
        return Moved(compared, self._replaced, resumed)

    def _source(self) -> SqliteConnection:
        source = connect(self._file, read_only=True)
        if schema.from_a_newer_gateway(source) or schema.missing(source):
            source.close()
            raise StoreError(
                f"The registry {self._file} has the schema of another version. Nothing was changed. Run 'gateway "
                "migrate-schema' with this version first."
            )
        return source

    def _copy(self, table: Table, source: SqliteConnection, target: PostgresConnection) -> bool:
        """Copy the rows after the greatest key in the target; return whether there were some already."""
        newest = target.execute(
            f"SELECT {', '.join(table.key)} FROM {table.name} ORDER BY "  # noqa: S608 - names of our own tables
            f"{', '.join(f'{name} DESC' for name in table.key)} LIMIT 1"
        ).fetchone()
        after = None if newest is None else tuple(newest)
        if after is not None:
            done = target.execute(f"SELECT count(*) FROM {table.name}").fetchall()[0][0]  # noqa: S608 - the same
            self._progress(done)
        for rows in _pages(table, source, after):
            target.begin()
            target.copy_rows(table.name, table.columns, [_storable(row) for row in rows])
            target.execute("COMMIT")
            self._progress(len(rows))
        return after is not None

    def _compared(self, table: Table, source: SqliteConnection, target: PostgresConnection) -> Contents:
        here = _contents(self._counted(row) for rows in _pages(table, source) for row in rows)
        there = _contents(row for rows in _pages(table, target) for row in self._told(rows))
        if here != there:
            raise StoreError(
                f"The table {table.name} differs: {count(here.rows, 'row')} with the checksum {here.checksum} in the "
                f"source, {there.rows} with {there.checksum} in the target. No gateway will use the target. Drop that "
                "database, create it again, and start over."
            )
        return here

    def _counted(self, row: Row) -> Row:
        stored = _storable(row)
        self._replaced += stored is not row
        return stored

    def _told(self, rows: list[Row]) -> list[Row]:
        self._progress(len(rows))
        return rows

    def _sample(self, table: Table, source: SqliteConnection, target: PostgresConnection) -> int:
        taken = 0
        columns = ", ".join(table.columns)
        target.begin()
        try:
            for number, rows in enumerate(_pages(table, source)):
                if number == 0:
                    target.execute(f"CREATE TEMPORARY TABLE move_sample ({_declared(table, rows[0])}) ON COMMIT DROP")
                target.copy_rows("move_sample", table.columns, [_storable(row) for row in rows])
                _contents(iter(rows))
                taken += len(rows)
                if taken >= SAMPLE:
                    break
            if taken:
                _contents(tuple(row) for row in target.execute(f"SELECT {columns} FROM move_sample"))  # noqa: S608
        finally:
            rollback(target)
        return taken


@contextmanager
def _translated() -> Iterator[None]:
    """Raise errors of both databases as ours. A connection that is closed takes its transaction back."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise store_error(error, "moved", again=False) from error


def _tables(source: SqliteConnection) -> Iterator[Table]:
    """Yield the tables, those before that others refer to."""
    names = [
        row[0]
        for row in source.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        if not row[0].startswith(_OWN) and row[0] not in LEFT
    ]
    needs = {name: {row[2] for row in source.execute(f"PRAGMA foreign_key_list({name})")} - {name} for name in names}
    done: set[str] = set()
    while needs:
        ready = [name for name, needed in needs.items() if needed <= done]
        for name in ready:
            del needs[name]
            yield _table(source, name)
        done.update(ready)


def _table(source: SqliteConnection, name: str) -> Table:
    facts = [(row["name"], row["pk"]) for row in source.execute(f"PRAGMA table_info({name})")]
    key = tuple(column for column, place in sorted(facts, key=lambda each: each[1]) if place)
    rows = source.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - names of our own tables
    return Table(name, tuple(column for column, _ in facts), key, rows)


def _pages(table: Table, connection: DatabaseConnection, after: Row | None = None) -> Iterator[list[Row]]:
    while True:
        sql, values = table.page(after)
        rows = [tuple(row) for row in connection.execute(sql, values).fetchall()]
        if not rows:
            return
        yield rows
        after = table.key_of(rows[-1])


def _storable(row: Row) -> Row:
    """Return the row as PostgreSQL stores it; the same object where nothing has to be replaced."""
    if any(isinstance(value, str) and _NUL in value for value in row):
        return tuple(value.replace(_NUL, _INSTEAD_OF_NUL) if isinstance(value, str) else value for value in row)
    return row


def _declared(table: Table, row: Row) -> str:
    """Return columns for rows like this one, as PostgreSQL declares them."""
    types = {int: "numeric", float: "numeric", bytes: "bytea"}
    return ", ".join(f"{name} {types.get(type(value), 'text')}" for name, value in zip(table.columns, row, strict=True))


def _contents(rows: Iterator[Row]) -> Contents:
    number = total = 0
    for row in rows:
        number += 1
        total += int.from_bytes(blake2b(repr(row).encode(), digest_size=_HASH_BYTES).digest())
    return Contents(number, f"{total % (1 << (8 * _HASH_BYTES)):016x}")


def _state(source: SqliteConnection, file: Path) -> str:
    """Return a value that changes with each change of the source."""
    files = [file, file.with_name(f"{DATABASE_NAME}-wal")]
    sizes = [(each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.exists() and each.stat().st_size]
    numbers = [tuple(row) for row in source.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name")]
    known = (epoch_sql.registry_id(View(source)), sizes, numbers)
    return blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _set_numbers(source: SqliteConnection, target: PostgresConnection) -> None:
    """Let new rows of the target get numbers above all that the source ever gave."""
    given = {row[0]: row[1] for row in source.execute("SELECT name, seq FROM sqlite_sequence")}
    target.execute("UPDATE event_counter SET seq = ?", (given.get("events", 0),))
    sequences = target.execute(
        """SELECT table_name, column_name, pg_get_serial_sequence(table_name, column_name)
            FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES'"""
    ).fetchall()
    for table, column, sequence in [*sequences, ("outbox", "seq", "outbox_seq")]:
        newest = target.execute(f"SELECT max({column}) FROM {table}").fetchall()[0][0] or 0  # noqa: S608 - our own
        number = max(newest, given.get(table, 0))
        target.execute("SELECT setval(?::regclass, ?, ?::int = 1)", (sequence, max(number, 1), int(number > 0)))
