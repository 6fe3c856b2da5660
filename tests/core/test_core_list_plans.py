"""The list of devices stays quick with many devices: how SQLite goes about it, whatever is filtered."""

from pathlib import Path
from typing import Any

import pytest
from core_support import World

from gateway import model
from gateway.store import Row, View, device_list

ORDERS = ("asc", "desc")
OF_THE_ORDER = {
    "created_at": "devices_",
    "updated_at": "devices_by_updated",
    "serial_number": "sqlite_autoindex_devices",  # of UNIQUE (project_id, serial_number)
    "name": "devices_by_name",
}
QUERIES: list[dict[str, Any]] = [
    {},
    {"offset": 90_000},
    {"search": "ward"},
    {"status": "unbound"},
    {"connection": "offline"},
    {"condition": "low_battery"},
    {"condition": "storage_full"},
    {"condition": "reset_pending"},
    {"search": "ward", "status": "bound", "connection": "online", "condition": "low_battery", "model": "bota_pin"},
    *(
        {"sort": sort, "order": order}
        for sort in ("created_at", "updated_at", "serial_number", "name")
        for order in ORDERS
    ),
    {"sort": "name", "status": "bound", "connection": "online"},
]


class Planned(View):
    """Answers how a query would be worked off, instead of working it off."""

    def __init__(self, view: View) -> None:
        super().__init__(view.connection)
        self.steps: list[str] = []

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Keep the plan."""
        self.steps = [row["detail"] for row in super().all(f"EXPLAIN QUERY PLAN {sql}", *values)]
        return []


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_page_is_read_off_an_index_in_its_order(tmp_path: Path, query: dict[str, Any]) -> None:
    """Nothing is sorted, no table is read from end to end, and the health of a device is one step away.

    So the first page costs fifty steps, and what has to look at every device does that once.
    """
    wanted = model.ListDevices(**query, limit=50)
    with World(tmp_path) as world:
        world.register("BP-1", name="Ward 1")
        plans = [plan_of(world, wanted), plan_of(world, wanted.model_copy(update={"cursor": cursor_of(world, wanted)}))]
    for plan in plans:
        check_plan(plan, OF_THE_ORDER[wanted.sort])


def plan_of(world: World, query: model.ListDevices) -> list[str]:
    """The steps in which a page is read."""
    plan = Planned(world.view)
    device_list.page(plan, world.project_id, query)
    return plan.steps


def cursor_of(world: World, query: model.ListDevices) -> str:
    """Where the page after the first device begins."""
    plain = model.ListDevices(sort=query.sort, order=query.order)
    return device_list.cursor(plain, device_list.page(world.view, world.project_id, plain)[0])


def check_plan(steps: list[str], index: str) -> None:
    """One index gives the devices in their order."""
    first, *others = steps
    assert first.startswith(f"SEARCH d USING INDEX {index}"), first
    for step in others:
        assert "TEMP B-TREE" not in step
        assert not step.startswith("SCAN") or "commands_one_open" in step, step
    assert [step for step in others if step.startswith("SEARCH h USING INTEGER PRIMARY KEY")]
