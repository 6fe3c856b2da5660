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
    transact,
)
from gateway.store import open_database as open_registry
from gateway.store.sqlite.connection import SqliteConnection

pytestmark = pytest.mark.sqlite
"""SQLite counts its steps. How PostgreSQL plans is in ``test_postgres_plans.py``."""

SMALL, LARGE = 1_000, 100_000
STEPS = 100
"""SQLite reports every so many steps."""
MOST, MOST_OF_A_SEARCH = 3, 10
PAGE = 5_000
"""Steps for a whole page, where the small fleet has less, and for a look at whether devices are few."""
FROM_FEW = 60 * device_candidates.FEW
"""Steps for the candidates of a combination: of so few devices each is looked at."""
PROJECT = "proj_1"
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
]


def fill(tx: Tx, devices: int) -> None:
    """Add bound and unbound devices: few of a rare model, one in a hundred low on battery."""
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, 'ward', 1)", PROJECT)
    tx.run(
        """WITH RECURSIVE n (pk) AS (SELECT 1 UNION ALL SELECT pk + 1 FROM n WHERE pk < ?)
            INSERT INTO devices (pk, id, project_id, serial_number, model, name, end_user_id, bound_at, created_at,
            updated_at) SELECT pk, printf('dev_%07d', pk), 'proj_1', printf('BP-%07d', pk),
            CASE WHEN pk <= 5 THEN 'rare' ELSE 'common' END, printf('bed %d', pk % 777),
            CASE WHEN pk % 10 THEN printf('eu_%07d', pk) END, CASE WHEN pk % 10 THEN 1 END, 1, pk % 1000 FROM n""",
        devices,
    )
    tx.run(
        """INSERT INTO health (device_pk, connection, offline_due_at, low_battery)
            SELECT pk, CASE WHEN pk % 3 THEN 'online' ELSE 'offline' END, 1, pk % 100 = 1 FROM devices
            WHERE pk % 20 > 0"""
    )
    device_search.rebuild(tx)


class Fleet:
    """A registry of some size."""

    def __init__(self, connection: SqliteConnection) -> None:
        self.connection, self.view, self.steps = connection, View(connection), 0
        connection.set_progress_handler(self._count, STEPS)

    def _count(self) -> int:
        self.steps += STEPS
        return 0

    def cost(self, **query: Any) -> int:
        """The steps of SQLite for a page, and for the total if it is asked for."""
        asked, before = ListDevices.model_validate(query), self.steps
        device_list.page(self.view, PROJECT, asked)
        if asked.total:
            device_list.total(self.view, PROJECT, asked)
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


def test_a_scan_would_be_seen(fleets: list[Fleet]) -> None:
    """A text of one character has no index: this measure shows that each device is compared."""
    small, large = (fleet.cost(search="~") for fleet in fleets)
    assert large > 50 * small


def test_counts_cost_the_same_with_many_devices(fleets: list[Fleet]) -> None:
    """They are kept: a row is read."""
    for fleet, devices in zip(fleets, (SMALL, LARGE), strict=True):
        before = fleet.steps
        counts = device_stats.count(fleet.view, PROJECT)
        assert fleet.steps - before <= STEPS
        assert counts.total_count == devices
        assert device_count_sql.kept(fleet.view) == device_count_sql.counted(fleet.view)


def test_the_largest_offset_is_bounded(fleets: list[Fleet]) -> None:
    """It reads so many devices in the index, and no more."""
    for sort in ("created_at", "updated_at", "serial_number", "name"):
        assert fleets[1].cost(offset=MAX_OFFSET, sort=sort) < 30 * MAX_OFFSET
