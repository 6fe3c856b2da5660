"""Daily partitions of the history on PostgreSQL: made in time, read one by one, dropped whole, and never missed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from unittest import mock

import psycopg
import pytest

from gateway.core.clock import DAY_MS, HOUR_MS, to_rfc3339
from gateway.domain import erasures, heartbeats
from gateway.store import Rules, Store, View, heartbeat_age_sql, heartbeat_sql, key_sql, thinned_sql
from gateway.store import heartbeat_partition_sql as partitions
from gateway.store.heartbeat_sql import Period, StoredHeartbeat
from gateway.store.postgres import engine
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import STEPS
from gateway.workers.erasures import Erasures
from tests.domain.support import World
from tests.support.postgres import database, execute, server

RULES = Rules(heartbeat_raw_days=2, heartbeat_history_days=9)
EVER = Period(0, 1 << 52)


class PostgresWorld(World):
    """A registry on PostgreSQL, whatever engine the run is for."""

    def __enter__(self) -> Self:
        """Open it."""
        self.connection: PostgresConnection = open_registry(database(self.data_dir))  # type: ignore[assignment]
        self.view = View(self.connection)
        self.project_id = self.run(key_sql.create_project, "ward")
        return self

    def numbers(self) -> list[int]:
        """The numbers of the partitions."""
        return [each.number for each in partitions.existing(self.view)]

    def page(self, device_id: str, limit: int = 1_000, every: int | None = None) -> list[StoredHeartbeat]:
        """What is in the history of a device, newest first."""
        pk = self.device(device_id).pk
        return heartbeat_sql.page(self.view, pk, EVER, after=None, limit=limit, every=every)

    def beat_daily(self, device_id: str, days: range) -> None:
        """Two heartbeats an hour apart on each of these days; the clock stands at the next one."""
        for day in days:
            for _ in range(2):
                self.beat(device_id, battery_percent=day, sent_at=to_rfc3339(self.now))
                self.now += HOUR_MS
            self.now += DAY_MS - 2 * HOUR_MS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PostgresWorld]:
    """A registry that keeps heartbeats for two days, and their hours for nine."""
    with PostgresWorld(tmp_path, rules=RULES) as world:
        yield world


class Plans(View):
    """Notes the tables that the plans of its queries name."""

    def __init__(self, connection: PostgresConnection) -> None:
        super().__init__(connection)
        self.tables: set[str] = set()

    def one(self, sql: str, *values: Any) -> Any:
        """Explain the query, then answer it."""
        self._explain(sql, values)
        return super().one(sql, *values)

    def value(self, sql: str, *values: Any) -> Any:
        """Do the same."""
        self._explain(sql, values)
        return super().value(sql, *values)

    def records(self, kind: Any, sql: str, *values: Any) -> Any:
        """Do the same."""
        self._explain(sql, values)
        return super().records(kind, sql, *values)

    def _explain(self, sql: str, values: tuple[Any, ...]) -> None:
        (plan,) = self.connection.execute(f"EXPLAIN (FORMAT JSON) {sql}", values).fetchall()[0]
        waiting = [plan[0]["Plan"]]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            if "Relation Name" in node:
                self.tables.add(node["Relation Name"])


def test_each_day_has_a_partition_and_a_page_plans_those_that_it_reads(world: PostgresWorld) -> None:
    """The chain goes on through all of them, also where one of each day is wanted."""
    device_id, _ = world.bound()
    world.beat_daily(device_id, range(4))
    assert world.numbers() == [0, 1, 2, 3]
    assert [row.id // partitions.SIZE for row in world.page(device_id)] == [3, 3, 2, 2, 1, 1, 0, 0]
    assert [row.battery_percent for row in world.page(device_id, every=DAY_MS)] == [3, 2, 1, 0]
    plans = Plans(world.connection)
    pk = world.device(device_id).pk
    yesterday = Period(world.now - 3 * DAY_MS, world.now - DAY_MS)
    rows = heartbeat_sql.page(plans, pk, yesterday, after=None, limit=9, every=None)
    assert [row.battery_percent for row in rows] == [2, 2, 1, 1]
    assert {each for each in plans.tables if each.startswith("heartbeats")} == {
        *("heartbeats_3", "heartbeats_2", "heartbeats_1", "heartbeats_0")
    }, "3: the mark of the next day; 0: where the period began"
    plans.tables.clear()
    heartbeat_sql.page(plans, pk, EVER, after=None, limit=2, every=None)
    assert {each for each in plans.tables if each.startswith("heartbeats")} == {"heartbeats_3"}


def test_a_look_for_old_heartbeats_takes_few_statements(world: PostgresWorld) -> None:
    """However many partitions there are: it holds the registry's lock."""
    device_id, _ = world.bound()
    counts = []
    for days in (range(1), range(1, 5)):
        world.beat_daily(device_id, days)
        with mock.patch.object(world.connection, "execute", wraps=world.connection.execute) as executed:
            assert world.run(lambda tx: heartbeat_age_sql.due(tx, 0, 10)) is None
        counts.append(executed.call_count)
    assert counts[0] == counts[1] < 12


@pytest.mark.parametrize("ahead", [0, 3 * DAY_MS])
def test_a_repeated_heartbeat_is_stored_once_over_midnight(world: PostgresWorld, ahead: int) -> None:
    """Also one of days ago, of a device whose clock is ahead, between new ones, and twice in a batch."""
    device_id, _ = world.bound()
    sent = [to_rfc3339(world.now + ahead + number) for number in range(4)]
    for each in (sent[1], sent[0]):  # the newest is not the last one that came
        world.beat(device_id, sent_at=each)
    for _ in range(2):
        world.now += DAY_MS
        for each in (sent[1], sent[2], sent[0], sent[3], sent[2]):
            world.beat(device_id, sent_at=each)
    assert len(world.page(device_id)) == 4


def test_a_wrong_clock_or_a_partition_that_cannot_be_made_refuses_nothing(
    world: PostgresWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers go on, in the order of arrival. Clocks that differ by days make no partition without end."""
    monkeypatch.setattr(partitions, "MOST", 5)
    device_id, _ = world.bound()
    for step in (0, 3_650 * DAY_MS, -3_650 * DAY_MS, *((9 * DAY_MS, -9 * DAY_MS) * 3)):
        world.now += step
        world.beat(device_id)
    assert world.numbers() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(partitions, "MOST", 9)
    world.connection.execute("CREATE TABLE heartbeats_5 (in_the_way int)")
    world.beat_daily(device_id, range(2))
    rows = world.page(device_id)
    assert len(rows) == 13
    assert {row.id // partitions.SIZE for row in rows} == {0, 1, 2, 3, 4}
    assert world.run(partitions.maintain) == 0
    world.connection.execute("DROP TABLE heartbeats_5")
    world.beat(device_id)
    assert world.page(device_id)[0].id == 5 * partitions.SIZE


def test_days_that_were_thinned_are_dropped_and_the_next_is_made(world: PostgresWorld) -> None:
    """Each heartbeat is counted once, also of a clock that was ahead. A reader of the table delays only the drop."""
    device_id, _ = world.bound()
    world.beat_daily(device_id, range(1))
    world.now += 3_650 * DAY_MS
    world.beat(device_id, battery_percent=77)
    world.now -= 3_650 * DAY_MS
    world.beat_daily(device_id, range(1, 5))
    while world.run(heartbeats.prune):
        pass
    hours = thinned_sql.page(world.view, world.device(device_id).pk, EVER, after=None, limit=99, every=None)
    assert [each.battery_percent for each in hours] == [77, 2, 2, 1, 1, 0, 0]
    assert [row.battery_percent for row in world.page(device_id)] == [4, 4, 3, 3]
    with psycopg.connect(database(world.data_dir).url) as reader:
        reader.execute("SELECT count(*) FROM heartbeats")
        assert world.run(partitions.maintain) == 0
        world.beat(device_id, battery_percent=5)
        assert world.page(device_id)[0].battery_percent == 5
    assert world.run(partitions.maintain) == 4
    assert world.numbers() == [4, 5, 6, 7], "today's, made by the heartbeat, and tomorrow's"
    assert [row.battery_percent for row in world.page(device_id)] == [5, 4, 4, 3, 3]
    world.now += DAY_MS
    world.beat(device_id, battery_percent=6)
    assert world.numbers() == [4, 5, 6, 7]


def test_what_left_the_history_and_is_there_still_is_erased(world: PostgresWorld) -> None:
    """With its person, though their hour counts for it."""
    device_id, _ = world.bound()
    world.beat_daily(device_id, range(4))
    while world.run(heartbeats.prune):
        pass
    world.unbind(device_id)

    async def erase() -> dict[str, int]:
        async with Store(database(world.data_dir), world.context) as store:
            accepted = await store.write(lambda tx: erasures.accept(tx, world.project_id, "eu_1", "key_1"))
            return (await Erasures(store).wait(accepted, 600)).counts

    assert world.view.value("SELECT count(*) FROM heartbeats") == 8
    assert asyncio.run(erase())["heartbeats"] == 8
    assert world.view.value("SELECT count(*) FROM heartbeats") == 0
    assert world.view.value("SELECT count(*) FROM thinned_heartbeats") == 0


def test_a_registry_with_rows_gets_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once or not at all. What is there stays where it is, is found when repeated, and leaves row by row."""
    name = f"older_{tmp_path.name[-20:]}"
    execute(server(), f"CREATE DATABASE {name}")
    address = server().address(name)
    before = {step: statements for step, statements in STEPS.items() if step < "p045"}
    with monkeypatch.context() as patch:
        patch.setattr(engine, "STEPS", before)
        open_registry(address).close()
    with psycopg.connect(address.url) as older:
        older.execute("INSERT INTO projects (id, name, created_at) VALUES ('p', 'p', 1)")
        older.execute(
            """INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at)
                VALUES (1, 'd', 'p', 's', 'm', 1, 1)"""
        )
        older.execute("INSERT INTO health (device_pk, history_id) VALUES (1, 3)")
        older.execute("INSERT INTO heartbeats (device_pk, received_at, sent_at) VALUES (1, 1, 7), (1, 2, 9), (1, 3, 8)")
        file = _file(older)
        older.execute("CREATE TABLE heartbeats_0 (in_the_way int)")
    with pytest.raises(Exception, match="heartbeats_0"):
        open_registry(address)
    with psycopg.connect(address.url) as older:
        assert _file(older) == file
        assert older.execute("SELECT max(name) FROM schema_steps").fetchone() == (max(before),)
        older.execute("DROP TABLE heartbeats_0")
    connection = open_registry(address)
    with psycopg.connect(address.url) as newer:
        assert newer.execute("SELECT pg_relation_filepath('heartbeats_0')").fetchone() == file
        assert newer.execute("SELECT id, sent_at FROM heartbeats ORDER BY id").fetchall() == [(1, 7), (2, 9), (3, 8)]
        assert newer.execute("SELECT history_sent_at FROM health").fetchone() == (9,)
        with pytest.raises(psycopg.errors.UniqueViolation):
            newer.execute("INSERT INTO heartbeats (id, device_pk, received_at, sent_at) VALUES (4, 1, 4, 8)")
    connection.close()


def _file(connection: psycopg.Connection[Any]) -> Any:
    return connection.execute("SELECT pg_relation_filepath('heartbeats')").fetchone()
