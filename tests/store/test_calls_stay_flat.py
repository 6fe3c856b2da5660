"""Calls of the API cost the same with 100 times as many devices: counted in steps of SQLite, not in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.models.devices import MAX_OFFSET, ListDevices
from gateway.store import (
    Context,
    Tx,
    View,
    device_candidates,
    device_count_sql,
    device_list,
    device_search,
    device_stats,
    device_totals,
    home_sql,
    transact,
)
from gateway.store import open_database as open_registry
from gateway.store.sqlite.connection import SqliteConnection

pytestmark = pytest.mark.sqlite
"""SQLite counts its steps. How PostgreSQL plans is in ``test_postgres_plans.py``."""

SMALL, LARGE = 1_000, 100_000
BESIDE = 500
"""Devices of a small project beside the large ones."""
STEPS = 100
"""SQLite reports every so many steps."""
MOST, MOST_OF_A_SEARCH = 3, 10
PAGE = 5_000
"""Steps for a whole page, where the small fleet has less, and for a look at whether devices are few."""
FROM_FEW = 60 * device_candidates.FEW
"""Steps for the candidates of a combination: of so few devices each is looked at."""
PROJECT = "proj_1"
STEADY, LITTLE = (f"proj_{'0' * 20}{last}" for last in ("STEADY", "LITTLE"))
"""Projects whose devices are all online and well, but for the oldest: :data:`FEW_EACH` are offline, as many unheard."""
FEW_EACH = 5
CELL, OTHER_CELL = 2, 3
"""Brokers: the home of all devices of a large project, and of a few of the small one."""
LISTS: list[dict[str, Any]] = [
    {},
    {"sort": "name"},
    {"sort": "updated_at"},
    {"sort": "serial_number"},
    {"total": True},
    {"status": "bound"},
    {"status": "unbound", "total": True},
    {"connection": "online", "total": True},
    {"serial_number": "BP-0000500"},
    {"end_user_id": "eu_0000501"},
    {"end_user_id": "eu_none"},
    {"model": "none"},
    {"model": "rare"},
    {"model": "rare", "status": "unbound", "sort": "name"},
    {"model": "none", "status": "bound", "connection": "online", "total": True},
    {"end_user_id": "eu_none", "model": "common", "condition": "low_battery"},
    {"condition": "low_battery"},
    {"condition": "low_battery", "status": "bound", "connection": "online"},
    {"model": "rare", "condition": "low_battery"},
    {"condition": "storage_full"},
    {"condition": "reset_pending", "total": True},
    {"seen": False, "connection": "online"},
    {"tag": ["none"]},
    {"tag": ["none"], "model": "common"},
    {"offset": 900},
    {"offset": 900, "sort": "name"},
    {"search": "BP-0000500"},
    {"search": "eu_0000501"},
    {"search": "no such text"},
    {"search": "no such text", "status": "bound", "total": True},
    {"search": "~"},
    {"search": "q", "total": True},
    {"search": "zz", "connection": "online"},
    {"search": "b"},
]
OF_FEW: list[dict[str, Any]] = [
    {"connection": "offline"},
    {"connection": "offline", "sort": "name"},
    {"connection": "offline", "status": "bound", "total": True},
    {"connection": "offline", "seen": True},
    {"seen": False},
    {"seen": False, "model": "common", "sort": "updated_at"},
    {"condition": "low_battery"},
    {"condition": "storage_full", "sort": "name"},
    {"condition": "reset_pending"},
    {"condition": "reset_pending", "connection": "online"},
]
"""Filters that hardly any device of the steady projects passes, or none."""


_NUMBERS = "WITH RECURSIVE n (pk) AS (SELECT 1 UNION ALL SELECT pk + 1 FROM n WHERE pk < ?)"


def fill(tx: Tx, devices: int) -> None:
    """Add bound and unbound devices: few of a rare model, one in fifty low on battery, one in ten with a reset.

    As many are in a second project, and a few in a third.
    """
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, 'ward', 1)", PROJECT)
    tx.run(
        f"""{_NUMBERS} INSERT INTO devices (pk, id, project_id, serial_number, model, name, end_user_id, bound_at,
            created_at, updated_at) SELECT pk, printf('dev_%07d', pk), 'proj_1', printf('BP-%07d', pk),
            CASE WHEN pk <= 5 THEN 'rare' ELSE 'common' END, printf('bed %d', pk % 777),
            CASE WHEN pk % 10 THEN printf('eu_%07d', pk) END, CASE WHEN pk % 10 THEN 1 END, 1, pk % 1000 FROM n""",  # noqa: S608 - constants
        devices,
    )
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at, low_battery)
            SELECT pk, CASE WHEN pk % 3 THEN 'online' ELSE 'offline' END, 1, pk % 50 = 1 FROM devices
            WHERE pk % 20 > 0"""
    )
    for project_id, first, count in ((STEADY, 1_000_000, devices), (LITTLE, 2_000_000, BESIDE)):
        tx.run("INSERT INTO projects (id, name, created_at) VALUES (?1, ?1, 1)", project_id)
        tx.run(
            f"""{_NUMBERS} INSERT INTO devices (pk, id, project_id, serial_number, model, bound_at, created_at,
                updated_at) SELECT ? + pk, printf('dev_%07d', ? + pk), ?, printf('BP-%07d', pk), 'common', 1, 1, pk
                FROM n""",  # noqa: S608 - constants
            *(count, first, first, project_id),
        )
        add_health(tx, first, first + count)
    add_resets(tx, PROJECT)
    add_homes(tx)
    device_search.rebuild(tx)


def add_health(tx: Tx, first: int, last: int) -> None:
    """Let the devices of a steady project be heard, but for the oldest few; the next few are offline."""
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at)
            SELECT pk, CASE WHEN pk <= ? THEN 'offline' ELSE 'online' END, 1 FROM devices WHERE pk > ? AND pk <= ?""",
        *(first + 2 * FEW_EACH, first + FEW_EACH, last),
    )


def add_homes(tx: Tx) -> None:
    """Let one broker be the home of a large project, and another of the newest few devices of the small one."""
    for pk, project_id, after in ((CELL, STEADY, 0), (OTHER_CELL, LITTLE, 2_000_000 + BESIDE - 10)):
        tx.run("INSERT INTO brokers (pk, id, added_at) VALUES (?, ?, 1)", pk, f"cell_{pk}")
        tx.run(
            """INSERT INTO homes (device_pk, broker_pk, since)
                SELECT pk, ?, 1 FROM devices WHERE project_id = ? AND pk > ?""",
            *(pk, project_id, after),
        )
    home_sql.recount(tx)


def add_resets(tx: Tx, project_id: str) -> None:
    """Ask for a reset of one device in ten of a project."""
    some = "FROM devices WHERE project_id = ? AND pk % 10 = 1"
    tx.run(
        f"""INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at)
            SELECT 'cmd_' || id, pk, 'factory_reset', 'pending', '{{}}', 1, '', 1 {some}""",
        project_id,
    )
    tx.run(
        f"""INSERT INTO resets (command_id, device_pk, project_id, requested_at, recordings, serial_number, model,
            generation_before) SELECT 'cmd_' || id, pk, project_id, 1, 'keep', serial_number, model, 1 {some}""",
        project_id,
    )


class Fleet:
    """A registry of some size."""

    def __init__(self, connection: SqliteConnection) -> None:
        self.connection, self.view, self.steps = connection, View(connection), 0
        connection.set_progress_handler(self._count, STEPS)

    def _count(self) -> int:
        self.steps += STEPS
        return 0

    def cost(self, project_id: str = PROJECT, /, **query: Any) -> int:
        """The steps of SQLite for a page, and for the total if it is asked for."""
        asked, before = ListDevices.model_validate(query), self.steps
        device_list.page(self.view, project_id, asked)
        if asked.total:
            device_totals.total(self.view, project_id, asked)
        return self.steps - before


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Fleet]]:
    """A small one and a large one."""
    with (
        closing(_made(tmp_path_factory.mktemp("small"), SMALL)) as small,
        closing(_made(tmp_path_factory.mktemp("large"), LARGE)) as large,
    ):
        yield [Fleet(small), Fleet(large)]


def _made(folder: Path, devices: int) -> SqliteConnection:
    connection = open_registry(folder)
    assert isinstance(connection, SqliteConnection)
    connection.execute("PRAGMA synchronous = OFF")
    transact(connection, Context(), lambda tx: fill(tx, devices))
    return connection


@pytest.mark.parametrize("query", LISTS, ids=str)
def test_a_page_costs_the_same_with_many_devices(fleets: list[Fleet], query: dict[str, Any]) -> None:
    """Few or none match, or many: nothing is read that grows with the fleet."""
    small, large = (fleet.cost(**query) for fleet in fleets)
    most = MOST_OF_A_SEARCH if "search" in query else MOST
    assert large <= max(most * small + PAGE, FROM_FEW * (len(query) > 1)), (small, large)


@pytest.mark.parametrize("query", OF_FEW, ids=str)
@pytest.mark.parametrize("project_id", [STEADY, LITTLE])
def test_a_filter_that_few_pass_costs_a_page(fleets: list[Fleet], project_id: str, query: dict[str, Any]) -> None:
    """In a large project, where they are the oldest; and in a small one beside others where many pass."""
    assert fleets[1].cost(project_id, **query) <= PAGE


def test_a_filter_that_none_passes_costs_a_page(fleets: list[Fleet]) -> None:
    """Offline, and never heard: the same once the last of them was heard."""
    fleet = fleets[1]
    oldest = [1_000_000 + number for number in range(1, 2 * FEW_EACH + 1)]
    for number in oldest:
        fleet.connection.execute(
            """INSERT INTO health (device_pk, connection) VALUES (?, 'online')
                ON CONFLICT (device_pk) DO UPDATE SET connection = 'online'""",
            (number,),
        )
    for query in ({"connection": "offline"}, {"seen": False}, {"connection": "offline", "seen": True}):
        asked = ListDevices.model_validate(query)
        assert device_list.page(fleet.view, STEADY, asked) == []
        assert fleet.cost(STEADY, **query) <= PAGE


@pytest.mark.parametrize(("cell", "found"), [(CELL, 0), (OTHER_CELL, 10)])
def test_the_devices_of_a_cell_cost_a_page(fleets: list[Fleet], cell: int, found: int) -> None:
    """Those of a small project beside the large one that the cell is the home of."""
    fleet = fleets[1]
    before = fleet.steps
    assert len(home_sql.at(fleet.view, cell, 0, 50, LITTLE)) == found
    assert fleet.steps - before <= PAGE


def test_a_scan_would_be_seen(fleets: list[Fleet]) -> None:
    """Two filters that many pass, and none passes both: this measure shows that each device is compared."""
    small, large = (fleet.cost(status="unbound", search="eu_") for fleet in fleets)
    assert large > 50 * small


def test_counts_cost_the_same_with_many_devices(fleets: list[Fleet]) -> None:
    """They are kept: a row is read."""
    for fleet, devices in zip(fleets, (SMALL, LARGE), strict=True):
        before = fleet.steps
        counts = device_stats.count(fleet.view, PROJECT)
        assert fleet.steps - before <= STEPS
        assert counts.total_count == devices
        assert device_count_sql.wrong(fleet.view) == []


def test_the_largest_offset_is_bounded(fleets: list[Fleet]) -> None:
    """It reads so many devices in the index, and no more."""
    for sort in ("created_at", "updated_at", "serial_number", "name"):
        assert fleets[1].cost(offset=MAX_OFFSET, sort=sort) < 30 * MAX_OFFSET
