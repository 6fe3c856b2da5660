"""Lists of events, resets and jobs cost a page of 100,000 rows on either engine: in steps of SQLite, or blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import to_rfc3339
from gateway.models.events import ListProjectEvents
from gateway.models.jobs import Outcome
from gateway.models.reset_list import ListResets
from gateway.store import Context, Tx, View, event_list, job_sql, job_target_sql, open_database, reset_list, transact
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.sqlite.connection import SqliteConnection
from tests.store.test_calls_stay_flat import STEPS
from tests.store.test_postgres_plans import Reading
from tests.support.postgres import database

ROWS = 100_000
PROJECT, LITTLE = (f"proj_{'0' * 20}{last}" for last in ("LARGE1", "LITTLE"))
SECOND = 1_000
OLD, NEW = to_rfc3339(50 * SECOND), to_rfc3339((ROWS - 50) * SECOND)
"""Fifty rows are older than the one, and as many are newer than the other: there is one each second."""
NONE = to_rfc3339(2 * ROWS * SECOND)
PAGE = 20
MOST = {"sqlite": 20_000, "postgresql": 400}
"""Steps or blocks of a page, and of a look at whether a period has few events."""
NUMBERS = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)"
FILL = (
    f"INSERT INTO projects (id, name, created_at) VALUES ('{PROJECT}', 'large', 1), ('{LITTLE}', 'little', 1)",  # noqa: S608 - constants
    """INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at)
        SELECT n, 'dev_' || n, '{project}', 'SN-' || n, 'bota_pin', 1, 1 FROM n""",
    """INSERT INTO events (seq, id, project_id, type, created_at, data, actor, device_pk)
        SELECT n, 'evt_' || n, CASE n % 1000 WHEN 0 THEN '{little}' ELSE '{project}' END,
            CASE WHEN n <= 50 THEN 'device.registered' WHEN n % 2 = 0 THEN 'device.bound' ELSE 'device.unbound' END,
            n * 1000, '{{"actor": "x"}}', CASE WHEN n <= 50 THEN 'key_old' WHEN n % 2 = 0 THEN 'key_new' ELSE 'cli' END,
            CASE WHEN n <= 50 THEN 7 ELSE n END FROM n""",
    """INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at, final_at)
        SELECT 'cmd_' || n, n, 'factory_reset', CASE WHEN n <= 50 THEN 'pending' ELSE 'executed' END, '{{}}', 1, '',
            n * 1000, CASE WHEN n > 50 THEN n * 1000 END FROM n""",
    """INSERT INTO resets (command_id, device_pk, project_id, requested_at, finished_at, outcome, recordings,
            serial_number, model, generation_before)
        SELECT 'cmd_' || n, n, CASE n % 1000 WHEN 0 THEN '{little}' ELSE '{project}' END, n * 1000,
            CASE WHEN n > 50 THEN n * 1000 END,
            CASE WHEN n > 100 THEN 'executed' WHEN n > 50 THEN 'failed' END, 'keep', '', 'bota_pin', 1 FROM n""",
    """INSERT INTO jobs (id, project_id, name, type, params, status, created_by, created_at, per_minute)
        SELECT 'job_' || n, '{project}', 'j', 'reboot', '{{}}', CASE WHEN n <= 50 THEN 'aborted' ELSE 'completed' END,
            'key_1', 1, 1 FROM n""",
    """INSERT INTO job_targets (job_id, position, device_pk, binding_generation, outcome)
        SELECT 'job_1', n, n, 1, CASE WHEN n > 99950 THEN 'failed' ELSE 'executed' END FROM n""",
)

Read = Callable[[View], Any]


def events(before: int | None = None, project_id: str = PROJECT, **query: Any) -> Read:
    """A page of events."""
    asked = ListProjectEvents.model_validate(query)
    return lambda view: event_list.page_of_project(view, project_id, asked, before, PAGE)


def resets(project_id: str = PROJECT, **query: Any) -> Read:
    """A page of resets."""
    return lambda view: reset_list.page(view, project_id, ListResets.model_validate(query), PAGE)


LISTS: dict[str, tuple[Read, int]] = {
    "events": (events(), PAGE),
    "events of the little project": (events(project_id=LITTLE), PAGE),
    "events, old": (events(until=OLD), PAGE),
    "events, old, second page": (events(20, until=OLD), 19),
    "events, new": (events(since=NEW), PAGE),
    "events, none": (events(since=NONE), 0),
    "events of the little project, old": (events(project_id=LITTLE, until=OLD), 0),
    "events of a type, old": (events(until=OLD, type="device.registered"), PAGE),
    "events of a frequent type, new": (events(since=NEW, type="device.bound"), PAGE),
    "events of a frequent type, none": (events(since=NONE, type="device.bound"), 0),
    "events of a rare type": (events(type="device.registered"), PAGE),
    "events of no type": (events(type="device.deleted"), 0),
    "events of a rare actor": (events(actor="key_old"), PAGE),
    "events of an actor, new": (events(since=NEW, actor="key_new"), PAGE),
    "events of an actor, none": (events(since=NONE, actor="cli"), 0),
    "events of a device": (events(device_id="dev_7"), PAGE),
    "events of a device, new": (events(device_id="dev_7", since=NEW), 0),
    "events of a device as actor": (events(actor="dev_7"), 0),
    "actors": (lambda view: event_list.actors(view, PROJECT), 3),
    "resets": (resets(), PAGE + 1),
    "resets, old": (resets(until=OLD), PAGE + 1),
    "resets, none": (resets(since=NONE), 0),
    "resets, oldest first": (resets(order="asc"), PAGE + 1),
    "resets, second page": (resets(cursor="cmd_40"), PAGE + 1),
    "open resets": (resets(status="open"), PAGE + 1),
    "failed resets": (resets(status="failed"), PAGE + 1),
    "cancelled resets": (resets(status="cancelled"), 0),
    "failed resets of the little project": (resets(LITTLE, status="failed"), 0),
    "resets that ended, old": (resets(time="finished_at", until=OLD), 0),
    "resets that ended, new": (resets(time="finished_at", since=NEW), PAGE + 1),
    "jobs": (lambda view: job_sql.page(view, PROJECT, None, None, PAGE), PAGE + 1),
    "aborted jobs": (lambda view: job_sql.page(view, PROJECT, "aborted", None, PAGE), PAGE + 1),
    "cancelled jobs": (lambda view: job_sql.page(view, PROJECT, "cancelled", None, PAGE), 0),
    "targets": (lambda view: job_target_sql.page(view, "job_1", (), ROWS // 2, PAGE), PAGE + 1),
    "failed targets": (lambda view: job_target_sql.page(view, "job_1", [Outcome.FAILED], -1, PAGE), PAGE + 1),
    "skipped targets": (lambda view: job_target_sql.page(view, "job_1", [Outcome.SKIPPED], -1, PAGE), 0),
}


class Registry:
    """A registry with many rows, and the cost of reading from it."""

    def __init__(self, connection: SqliteConnection | PostgresConnection) -> None:
        self.connection, self.steps = connection, 0
        self.most = MOST[connection.dialect.name]
        if isinstance(connection, SqliteConnection):
            connection.set_progress_handler(self._count, STEPS)

    def _count(self) -> int:
        self.steps += STEPS
        return 0

    def cost(self, read: Read) -> tuple[int, int]:
        """Steps or blocks of this list, and the number of its rows."""
        view, before = Reading(self.connection), self.steps
        if isinstance(self.connection, SqliteConnection):
            found = read(View(self.connection))
            return self.steps - before, len(found)
        self.connection.begin_read()
        found = read(view)
        self.connection.end_read()
        return view.blocks, len(found)


@pytest.fixture(scope="module", params=[pytest.param("sqlite", marks=pytest.mark.sqlite), "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One on each engine."""
    folder = tmp_path_factory.mktemp(request.param)
    with closing(_made(folder, is_sqlite=request.param == "sqlite")) as connection:
        yield Registry(connection)


def _made(folder: Path, *, is_sqlite: bool) -> SqliteConnection | PostgresConnection:
    connection = open_database(folder) if is_sqlite else open_registry(database(folder))
    assert isinstance(connection, SqliteConnection | PostgresConnection)
    if isinstance(connection, SqliteConnection):
        connection.execute("PRAGMA synchronous = OFF")
    else:
        connection.patience = None
    transact(connection, Context(), _fill)
    if not is_sqlite:  # a registry on SQLite has no statistics
        connection.execute("VACUUM ANALYZE")
    return connection


def _fill(tx: Tx) -> None:
    tx.run(FILL[0])
    for table in ("devices", "commands") if isinstance(tx.connection, PostgresConnection) else ():
        tx.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for statement in FILL[1:]:
        tx.run(f"{NUMBERS} {statement.format(project=PROJECT, little=LITTLE)}", ROWS)
    for table in ("devices", "commands") if isinstance(tx.connection, PostgresConnection) else ():
        tx.run(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@pytest.mark.parametrize("name", LISTS)
def test_a_page_is_read_of_a_large_table(registry: Registry, name: str) -> None:
    """Old ones, rare ones, none: no table and no index is walked through."""
    read, rows = LISTS[name]
    cost, found = registry.cost(read)
    assert found == rows
    assert cost <= registry.most


def test_a_walk_would_be_seen(registry: Registry) -> None:
    """A type and an actor that are frequent and never meet: this measure shows that each event is looked at."""
    cost, found = registry.cost(events(type="device.unbound", actor="key_new"))
    assert found == 0
    assert cost > 2 * registry.most
