"""The list of devices stays quick with many devices: how SQLite goes about it, whatever is filtered."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gateway.models.devices import ListDevices
from gateway.store import Row, View, device_list
from tests.domain.support import World

pytestmark = pytest.mark.sqlite
"""Plans of SQLite. PostgreSQL plans by the size of the tables."""

ORDERS = ("asc", "desc")
OF_THE_ORDER = {
    "created_at": "devices_",
    "updated_at": "devices_by_updated",
    "serial_number": "sqlite_autoindex_devices",  # of UNIQUE (project_id, serial_number)
    "name": "devices_by_name",
}
QUERIES: list[dict[str, Any]] = [
    {},
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
    {"sort": "name", "tag": ["a", "b"]},
    {"sort": "updated_at", "tag": ["a"], "status": "bound"},
]


class Planned(View):
    """Answers how a query would be worked off, instead of working it off."""

    def __init__(self, view: View) -> None:
        super().__init__(view.connection)
        self.steps: list[str] = []
        self.before: list[list[str]] = []
        """The plans of the queries before the last."""

    def all(self, sql: str, *values: Any) -> list[Row]:
        """Keep the plan."""
        if self.steps:
            self.before.append(self.steps)
        self.steps = [row["detail"] for row in super().all(f"EXPLAIN QUERY PLAN {sql}", *values)]
        return []


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_page_is_read_from_an_index_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, Any]
) -> None:
    """Where many devices pass the filters nothing is sorted, no table is read from end to end.

    The health of a device is one step away. So the first page costs fifty steps, and what has to look at every device
    does that once.
    """
    wanted = ListDevices(**query, limit=50)
    monkeypatch.setattr(device_list, "few", lambda *_: None)
    monkeypatch.setattr(device_list, "SORTED", -1)
    with World(tmp_path) as world:
        world.register("BP-1", name="Ward 1")
        plans = [plan_of(world, wanted), plan_of(world, wanted.model_copy(update={"cursor": cursor_of(world, wanted)}))]
    for plan in plans:
        if wanted.condition in {"low_battery", "storage_full"}:
            check_plan_of_state(plan)
        else:
            check_plan(plan, OF_THE_ORDER[wanted.sort])


TAGGED = "SEARCH device_tags USING PRIMARY KEY (project_id=? AND tag=?)"
OF_STATE = "SEARCH s USING PRIMARY KEY (project=? AND state=?)"
FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "search": ({"search": "ward"}, "SCAN device_search VIRTUAL TABLE INDEX"),
    "search of end user": ({"search": "eu_12"}, "SCAN device_search_end_users VIRTUAL TABLE INDEX"),
    "end user": ({"end_user_id": "eu_1"}, "SEARCH devices USING INDEX devices_by_end_user"),
    "model": ({"model": "bota_note"}, "SEARCH devices USING INDEX devices_by_model"),
    "tag": ({"tag": ["a"]}, TAGGED),
    "bound": ({"status": "bound"}, "SEARCH devices USING INDEX devices_bound"),
    "unbound": ({"status": "unbound"}, "SEARCH devices USING INDEX devices_unbound"),
    "online": ({"connection": "online"}, OF_STATE),
    "never heard": ({"seen": False}, OF_STATE),
    "away": ({"connection": "offline", "seen": True}, OF_STATE),
    "low battery": ({"condition": "low_battery"}, OF_STATE),
    "storage full": ({"condition": "storage_full"}, OF_STATE),
    "reset pending": (
        {"condition": "reset_pending"},
        "SEARCH resets USING INDEX resets_by_outcome (project_id=? AND outcome=?)",
    ),
}


@pytest.mark.parametrize(
    ("name", "sort"), [each for each in product(FILTERS, OF_THE_ORDER) if each != ("tag", "created_at")]
)
def test_few_devices_are_found_by_an_index(tmp_path: Path, name: str, sort: str) -> None:
    """One index says which they are, and they alone are looked at and sorted."""
    query, index = FILTERS[name]
    with World(tmp_path) as world:
        world.bind(world.register("BP-1", name="Ward 1"), "eu_123")
        plan = Planned(world.view)
        device_list.page(plan, world.project_id, ListDevices.model_validate({**query, "sort": sort}))
    (asked,) = plan.before
    assert asked[0].startswith(index), asked
    assert all(step.startswith("SEARCH d USING INTEGER PRIMARY KEY") for step in asked[1:]), asked
    assert plan.steps[0].startswith("SCAN json_each VIRTUAL TABLE INDEX"), plan.steps
    assert plan.steps[1].startswith("SEARCH d USING INTEGER PRIMARY KEY"), plan.steps
    assert [step for step in plan.steps if step.startswith("SEARCH h USING INTEGER PRIMARY KEY")]


@pytest.mark.parametrize("sort", OF_THE_ORDER)
def test_of_what_an_offset_leaves_out_no_health_is_read(tmp_path: Path, sort: str) -> None:
    """An index gives the devices in their order; the rest is read of those that are shown."""
    with World(tmp_path) as world:
        steps = plan_of(world, ListDevices.model_validate({"offset": 9_000, "sort": sort}))
    skipping = steps[: steps.index("SCAN c")]
    assert [step for step in skipping if step.startswith("SEARCH")] == [
        step for step in skipping if step.startswith(f"SEARCH d USING INDEX {OF_THE_ORDER[sort]}")
    ]
    assert not [step for step in skipping if "TEMP B-TREE" in step]
    assert [step for step in steps if step.startswith("SEARCH h USING INTEGER PRIMARY KEY")]


@pytest.mark.parametrize("query", [{}, {"order": "asc"}, {"status": "bound"}, {"total": True}], ids=str)
def test_devices_of_frequent_tags_are_read_from_the_index_of_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: dict[str, Any]
) -> None:
    """In the order of their registration: nothing is sorted, and no device without the first tag is looked at."""
    monkeypatch.setattr(device_list, "few", lambda *_: None)
    wanted = ListDevices(**query, tag=["a", "b"])
    with World(tmp_path) as world:
        world.register("BP-1")
        plans = [plan_of(world, wanted), plan_of(world, wanted.model_copy(update={"cursor": cursor_of(world, wanted)}))]
    for number, (first, second, device, *others) in enumerate(plans):
        bound = (" AND device_pk>?)", " AND device_pk<?)")[query.get("order") != "asc"] if number else ")"
        assert first == f"SEARCH t USING PRIMARY KEY (project_id=? AND tag=?{bound}", first
        assert second == "SEARCH t1 USING PRIMARY KEY (project_id=? AND tag=? AND device_pk=?)", second
        assert device.startswith("SEARCH d USING INTEGER PRIMARY KEY"), device
        assert not [step for step in others if "TEMP B-TREE" in step or step.startswith("SCAN")]


def test_a_page_of_one_tag_is_read_from_the_index_of_tags(tmp_path: Path) -> None:
    """However many devices have the tag, no more of them are looked at than the page shows."""
    with World(tmp_path) as world:
        world.register("BP-1")
        plan = Planned(world.view)
        device_list.page(plan, world.project_id, ListDevices(tag=["a"]))
    assert not plan.before
    tag, device, *others = plan.steps
    assert tag == "SEARCH t USING PRIMARY KEY (project_id=? AND tag=?)", tag
    assert device.startswith("SEARCH d USING INTEGER PRIMARY KEY"), device
    assert not [step for step in others if "TEMP B-TREE" in step or step.startswith("SCAN")]


def plan_of(world: World, query: ListDevices) -> list[str]:
    """The steps in which a page is read."""
    plan = Planned(world.view)
    device_list.page(plan, world.project_id, query)
    return plan.steps


def cursor_of(world: World, query: ListDevices) -> str:
    """Where the page after the first device begins."""
    plain = ListDevices(sort=query.sort, order=query.order)
    return device_list.cursor(plain, device_list.page(world.view, world.project_id, plain)[0])


def check_plan(steps: list[str], index: str) -> None:
    """One index gives the devices in their order."""
    first, *others = steps
    assert first.startswith(f"SEARCH d USING INDEX {index}"), first
    for step in others:
        assert "TEMP B-TREE" not in step
        assert not step.startswith("SCAN") or "commands_one_open" in step, step
    assert [step for step in others if step.startswith("SEARCH h USING INTEGER PRIMARY KEY")]


def check_plan_of_state(steps: list[str]) -> None:
    """The index of states gives the devices in the order of their registration."""
    state, device, health = steps
    assert state.startswith("SEARCH s USING PRIMARY KEY (project=? AND state=?"), state
    assert device.startswith("SEARCH d USING INTEGER PRIMARY KEY"), device
    assert health.startswith("SEARCH h USING INTEGER PRIMARY KEY"), health
