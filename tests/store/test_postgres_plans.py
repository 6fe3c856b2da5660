"""Calls of the API read the same of PostgreSQL with 100 times as many devices: counted in blocks, not in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.domain import grants
from gateway.models.devices import ListDevices
from gateway.store import (
    Context,
    Row,
    Tx,
    View,
    broker_entry_sql,
    broker_session_sql,
    command_sql,
    device_count_sql,
    device_list,
    device_sql,
    device_stats,
    device_totals,
    grant_key_sql,
    health_sql,
    home_sql,
    project_mark_sql,
    transact,
)
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.records import R
from tests.store.test_calls_stay_flat import (
    BESIDE,
    CELL,
    FEW_EACH,
    LARGE,
    LISTS,
    LITTLE,
    MOST,
    MOST_OF_A_SEARCH,
    OF_FEW,
    OTHER_CELL,
    PROJECT,
    SMALL,
    STEADY,
    add_health,
    add_homes,
    add_resets,
)
from tests.support.postgres import database

MIDDLE = 15_000
FEW = 50
PAGE = 400
"""Blocks of a whole page, where the small fleet has less, and of a look at whether devices are few."""
DEVICE = 10
"""Blocks for a device of a page, besides those of the page: its rows in other tables, by their indexes."""
SCAN = 4_000
"""Blocks of 100,000 devices and their health, read from end to end."""


def fill(tx: Tx, devices: int) -> None:
    """Add the devices that the test of SQLite has."""
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, 'ward', 1)", PROJECT)
    _let_triggers(tx, "DISABLE")
    tx.run(
        """INSERT INTO devices (pk, id, project_id, serial_number, model, name, end_user_id, bound_at, created_at,
            updated_at) SELECT pk, 'dev_' || lpad(pk::text, 7, '0'), 'proj_1', 'BP-' || lpad(pk::text, 7, '0'),
            CASE WHEN pk <= 5 THEN 'rare' ELSE 'common' END, 'bed ' || mod(pk, 777),
            CASE WHEN mod(pk, 10) > 0 THEN 'eu_' || lpad(pk::text, 7, '0') END,
            CASE WHEN mod(pk, 10) > 0 THEN 1 END, 1, mod(pk, 1000) FROM generate_series(1, ?) pk""",
        devices,
    )
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at, low_battery)
            SELECT pk, CASE WHEN mod(pk, 3) > 0 THEN 'online' ELSE 'offline' END, 1, (mod(pk, 50) = 1)::int
            FROM devices WHERE mod(pk, 20) > 0"""
    )
    for project_id, first, count in ((STEADY, 1_000_000, devices), (LITTLE, 2_000_000, BESIDE)):
        tx.run("INSERT INTO projects (id, name, created_at) VALUES (?1, ?1, 1)", project_id)
        tx.run(
            """INSERT INTO devices (pk, id, project_id, serial_number, model, bound_at, created_at, updated_at)
                SELECT pk, 'dev_' || pk, ?, 'BP-' || lpad(pk::text, 7, '0'), 'common', 1, 1, pk
                FROM generate_series(?::bigint, ?) pk""",
            *(project_id, first + 1, first + count),
        )
        add_health(tx, first, first + count)
    add_resets(tx, PROJECT)
    add_homes(tx)
    grants.ensure_key(tx)
    tx.run(
        """INSERT INTO tokens (device_pk, generation, hash, broker_entry, state, grant_kid, created_at)
            SELECT pk, 1, convert_to(id, 'UTF8'), 'entry of ' || id, 'active', (SELECT kid FROM signing_keys), 1
            FROM devices WHERE project_id = ? AND bound_at IS NOT NULL""",
        PROJECT,
    )
    for command_type, status in (("reboot", "pending"), ("trigger_upload", "executed")):
        tx.run(
            """INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at,
                final_at) SELECT 'cmd_' || lpad(pk::text, 7, '0') || ?1::text, pk, ?1, ?2, '{}', 1, repeat('x', 1000),
                1, CASE ?2::text WHEN 'executed' THEN pk END FROM devices WHERE mod(pk, 10) = 0""",
            *(command_type, status),
        )
    tx.run(
        """INSERT INTO broker_sessions (broker_pk, client_id, username, credential, let_in_at)
            SELECT 1, d.id, d.id, t.id, 1 FROM tokens t JOIN devices d ON d.pk = t.device_pk"""
    )
    _let_triggers(tx, "ENABLE")
    device_count_sql.recount(tx)


def _let_triggers(tx: Tx, verb: str) -> None:
    for table in ("devices", "health"):
        tx.run(f"ALTER TABLE {table} {verb} TRIGGER USER")


class Reading(View):
    """Counts the blocks that its queries read, in memory or from the disk."""

    blocks = 0
    context = Context()
    """For statements of a write."""

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Explain the query, then answer it."""
        self._explain(sql, values)
        return super().all(sql, *values)

    def records(self, kind: type[R], sql: str, *values: Any) -> list[R]:
        """Do the same."""
        self._explain(sql, values)
        return super().records(kind, sql, *values)

    def value(self, sql: str, *values: Any) -> Any:
        """Do the same."""
        self._explain(sql, values)
        return super().value(sql, *values)

    def one(self, sql: str, *values: Any) -> Row | None:
        """Do the same."""
        self._explain(sql, values)
        return super().one(sql, *values)

    def _explain(self, sql: str, values: tuple[Any, ...]) -> None:
        rows = self.connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", values).fetchall()
        plan = rows[0][0][0]["Plan"]
        self.blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def cost(connection: PostgresConnection, project_id: str = PROJECT, /, **query: Any) -> int:
    """The blocks read for a page, and for the total if it is asked for."""
    view, asked = Reading(connection), ListDevices.model_validate(query)
    device_list.page(view, project_id, asked)
    if asked.total:
        device_totals.total(view, project_id, asked)
    return view.blocks


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PostgresConnection]]:
    """A small one and a large one."""
    with (
        closing(_made(tmp_path_factory.mktemp("small"), SMALL)) as small,
        closing(_made(tmp_path_factory.mktemp("large"), LARGE)) as large,
    ):
        yield [small, large]


def _made(folder: Path, devices: int) -> PostgresConnection:
    connection = open_registry(database(folder))
    connection.patience = None
    transact(connection, Context(), lambda tx: fill(tx, devices))
    connection.execute("VACUUM ANALYZE")
    return connection


@pytest.mark.parametrize("query", LISTS, ids=str)
def test_a_page_reads_the_same_with_many_devices(fleets: list[PostgresConnection], query: dict[str, Any]) -> None:
    """Few or none match, or many: no table is read from end to end."""
    small, large = (cost(fleet, **query) for fleet in fleets)
    most = MOST_OF_A_SEARCH if "search" in query else MOST
    assert large <= min(most * small + PAGE, SCAN / 2) + 2 * query.get("offset", 0), (small, large)


@pytest.mark.parametrize("query", OF_FEW, ids=str)
@pytest.mark.parametrize("project_id", [STEADY, LITTLE])
def test_a_filter_that_few_pass_reads_a_page(
    fleets: list[PostgresConnection], project_id: str, query: dict[str, Any]
) -> None:
    """In a large project, where they are the oldest; and in a small one beside others where many pass."""
    assert cost(fleets[1], project_id, **query) <= PAGE


def test_a_filter_that_none_passes_reads_a_page(fleets: list[PostgresConnection]) -> None:
    """Offline, and never heard: the same once the last of them was heard."""
    fleet = fleets[1]
    for number in range(1, 2 * FEW_EACH + 1):
        fleet.execute(
            """INSERT INTO health (device_pk, connection) VALUES (?, 'online')
                ON CONFLICT (device_pk) DO UPDATE SET connection = 'online'""",
            (1_000_000 + number,),
        )
    for query in ({"connection": "offline"}, {"seen": False}, {"connection": "offline", "seen": True}):
        assert device_list.page(View(fleet), STEADY, ListDevices.model_validate(query)) == []
        assert cost(fleet, STEADY, **query) <= PAGE


@pytest.mark.parametrize("connection", ["online", "offline"])
def test_a_fleet_of_middle_size_is_not_read_as_a_whole(tmp_path: Path, connection: str) -> None:
    """Without statistics of the filter PostgreSQL expects few to pass, and sorts all that do."""
    with closing(_made(tmp_path, MIDDLE)) as fleet:
        assert cost(fleet, connection=connection) <= PAGE


def bound_after(after: int) -> list[str]:
    """FEW devices with a token."""
    return [f"dev_{number:07}" for number in range(after + 1, LARGE) if number % 10][:FEW]


PAGES: dict[str, Callable[[View, int], int]] = {
    "living devices": lambda view, after: len(device_sql.living(view, after, FEW)),
    "password entries": lambda view, after: len(broker_entry_sql.page(view, 1, f"dev_{after:07}", FEW).entries),
    "devices that ever had a token": lambda view, after: (
        FEW if broker_entry_sql.ever_bound(view, f"dev_{after:07}", FEW).last else 0
    ),
    "good entries": lambda view, after: len(broker_entry_sql.good(view, 1, bound_after(after))),
    "good sessions": lambda view, after: len(broker_session_sql.good_sessions(view, 1, bound_after(after))),
    "devices of a project": lambda view, after: len(project_mark_sql.page(view, PROJECT, after, FEW)),
    "devices of another key": lambda view, after: len(grant_key_sql.to_ask(view, "other", after, FEW)),
    "open commands": lambda view, after: len(command_sql.open_after(view, after, "", FEW)),
    "closed topics": lambda view, after: len(command_sql.closed_since(view, 0, (after, ""), FEW)),
    "overdue devices": lambda view, _: len(health_sql.overdue(cast("Tx", view), 1, FEW)),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_of_the_gateways_own_work_reads_a_page(
    fleets: list[PostgresConnection], page: Callable[[View, int], int]
) -> None:
    """Also far behind the first: nothing before it is read again, and nothing is sorted for it."""
    fleet = fleets[1]
    for after in (0, LARGE - LARGE // 10):
        fleet.begin_read()
        view = Reading(fleet)
        assert page(view, after) == FEW
        fleet.end_read()
        assert view.blocks <= PAGE + DEVICE * FEW, (after, view.blocks)


@pytest.mark.parametrize(("cell", "found"), [(CELL, 0), (OTHER_CELL, 10)])
def test_the_devices_of_a_cell_read_a_page(fleets: list[PostgresConnection], cell: int, found: int) -> None:
    """Those of a small project beside the large one that the cell is the home of."""
    view = Reading(fleets[1])
    assert len(home_sql.at(view, cell, 0, 50, LITTLE)) == found
    assert view.blocks <= 4 * BESIDE


def test_a_scan_would_be_seen(fleets: list[PostgresConnection]) -> None:
    """Two filters that many pass, and none passes both: this measure shows that each device is compared."""
    large = cost(fleets[1], status="unbound", search="eu_")
    assert large > SCAN / 2


def test_counts_read_the_same_with_many_devices(fleets: list[PostgresConnection]) -> None:
    """They are kept: a row is read."""
    for fleet, devices in zip(fleets, (SMALL, LARGE), strict=True):
        view = Reading(fleet)
        assert device_stats.count(view, PROJECT).total_count == devices
        assert view.blocks < PAGE
