"""What waits in the outbox is counted up to a limit: what that reads does not grow with the outbox."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import Context, Tx, View, gauge_sql, outbox_depth_sql, transact
from gateway.store import open_database as open_registry
from gateway.store.broker_sql import FIRST
from gateway.store.outbox_depth_sql import MOST_COUNTED, Waiting
from gateway.store.postgres.engine import open_registry as open_on_server
from gateway.store.sqlite.connection import SqliteConnection
from tests.domain.support import World
from tests.store.test_postgres_plans import Reading
from tests.support.outbox import outbox_depth
from tests.support.postgres import database

FEW, MANY = MOST_COUNTED + 1_000, 3 * MOST_COUNTED
FILLS = pytest.mark.parametrize("kinds", [outbox_depth_sql.KINDS, ("mirror",), ("mirror", "command")], ids=str)
"""Of a kind that has no rows, or has them behind all others, no row of another kind is read."""
STEPS = 100
"""SQLite reports every so many steps."""


def mark(tx: Tx, kind: str, count: int, created_at: int, not_before: int = 0) -> None:
    """Add so many rows of one device, each a millisecond after the one before."""
    tx.run(
        """WITH RECURSIVE n (i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
            INSERT INTO outbox (kind, device_pk, detail, created_at, not_before, broker_pk)
            SELECT CAST(?2 AS TEXT), 1, CAST(?4 AS TEXT) || ' ' || i, ?3 + i, CASE WHEN ?4 > 0 THEN ?4 + i ELSE 0 END, 1
            FROM n""",
        *(count, kind, created_at, not_before),
    )


def fill(tx: Tx, count: int, kinds: Sequence[str]) -> None:
    """Add a device, with so many rows of each kind, and as many commands that wait for their turn."""
    tx.run("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'ward', 1)")
    tx.run(
        """INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at)
            VALUES (1, 'dev_1', 'proj_1', 'SN-1', 'm', 1, 1)"""
    )
    for kind in kinds:
        mark(tx, kind, count, 1_000_000)
    if "command" in kinds:
        mark(tx, "command", count, 1, not_before=500_000)


def test_counts_end_at_the_limit(tmp_path: Path) -> None:
    """Below it they are exact, as those of the command line always are."""
    with World(tmp_path) as world:
        world.register()
        world.run(lambda tx: tx.run("DELETE FROM outbox"))
        assert outbox_depth(world.view) == (0, None)
        world.run(mark, "command", 3, 1_000)
        world.run(mark, "mirror", MOST_COUNTED - 1, 2_000)
        found = outbox_depth_sql.waiting(world.view)
        assert found == [Waiting(FIRST, "command", 3, 1_000), Waiting(FIRST, "mirror", MOST_COUNTED - 1, 2_000)]
        assert outbox_depth_sql.by_broker(found) == {FIRST: MOST_COUNTED}
        assert outbox_depth_sql.by_kind(found) == gauge_sql.outbox(world.view)
        world.run(mark, "credential", MOST_COUNTED + 5, 3_000)
        assert outbox_depth(world.view) == (MOST_COUNTED, 1_000)
        kinds = {kind: rows for kind, rows, _ in outbox_depth_sql.by_kind(outbox_depth_sql.waiting(world.view))}
        assert kinds == {"command": 3, "mirror": MOST_COUNTED - 1, "credential": MOST_COUNTED}
        assert {kind: rows for kind, rows, _ in gauge_sql.outbox(world.view)}["credential"] == MOST_COUNTED + 5


def test_the_oldest_is_found_behind_many(tmp_path: Path) -> None:
    """A command whose turn was before all others, or a row whose number is later because the clock was set back."""
    with World(tmp_path) as world:
        world.register()
        world.run(lambda tx: tx.run("DELETE FROM outbox"))
        world.run(mark, "command", MOST_COUNTED, 9_000_000)
        world.run(mark, "command", 2, 1_000, not_before=8_000)
        assert outbox_depth(world.view) == (MOST_COUNTED, 8_000)
        world.run(mark, "topic", 1, 7_000)
        world.run(mark, "topic", 1, 3_000, not_before=6_000)
        assert outbox_depth(world.view) == (MOST_COUNTED, 6_000)


def _steps(folder: Path, count: int, kinds: Sequence[str], work: Callable[[View], object]) -> int:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += STEPS
        return 0

    with closing(open_registry(folder)) as connection:
        assert isinstance(connection, SqliteConnection)
        transact(connection, Context(), lambda tx: fill(tx, count, kinds))
        connection.set_progress_handler(step, STEPS)
        work(View(connection))
    return steps


@pytest.mark.sqlite
@FILLS
def test_a_long_outbox_costs_sqlite_no_more(tmp_path: Path, kinds: Sequence[str]) -> None:
    """The steps of SQLite with three times as many rows; those of a whole count show that this would be seen."""
    small, large, whole = (
        _steps(tmp_path / name, count, kinds, work)
        for name, count, work in (
            ("small", FEW, outbox_depth_sql.waiting),
            ("large", MANY, outbox_depth_sql.waiting),
            ("whole", MANY, gauge_sql.outbox),
        )
    )
    assert large <= small + 10 * STEPS < whole, (small, large, whole)


def _blocks(folder: Path, count: int, kinds: Sequence[str], work: Callable[[View], object]) -> int:
    with closing(open_on_server(database(folder))) as connection:
        connection.patience = None
        transact(connection, Context(), lambda tx: fill(tx, count, kinds))
        connection.execute("VACUUM ANALYZE")
        view = Reading(connection)
        work(view)
        return view.blocks


@FILLS
def test_a_long_outbox_costs_postgresql_no_more(tmp_path: Path, kinds: Sequence[str]) -> None:
    """The same in the blocks that PostgreSQL reads."""
    small, large, whole = (
        _blocks(tmp_path / name, count, kinds, work)
        for name, count, work in (
            ("small", FEW, outbox_depth_sql.waiting),
            ("large", MANY, outbox_depth_sql.waiting),
            ("whole", MANY, gauge_sql.outbox),
        )
    )
    assert large <= 1.2 * small < whole, (small, large, whole)
