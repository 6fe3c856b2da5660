"""The list of resets stays quick with many resets: how SQLite goes about it, whatever is filtered."""

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.models.reset_list import ListResets, SummarizeResets
from gateway.store import View, reset_list
from tests.domain.support import World

DAY = "2026-11-10T00:00:00Z"
LATER = "2026-11-11T00:00:00Z"
BY_PROJECT, BY_FINISH = "resets_by_project (project_id=?", "resets_by_finish (project_id=?"
BY_OUTCOME = "resets_by_outcome (project_id=? AND outcome=?"
QUERIES: dict[str, tuple[dict[str, Any], str]] = {
    "all": ({}, BY_PROJECT),
    "oldest first": ({"order": "asc"}, BY_PROJECT),
    "requested within": ({"since": DAY, "until": LATER}, f"{BY_PROJECT} AND requested_at>? AND requested_at<?"),
    "failed": ({"status": "failed"}, BY_OUTCOME),
    "open": ({"status": "open"}, BY_OUTCOME),
    "open, oldest first": ({"status": "open", "order": "asc"}, BY_OUTCOME),
    "finished": ({"time": "finished_at"}, f"{BY_FINISH} AND finished_at>?"),
    "finished within": (
        {"time": "finished_at", "since": DAY, "until": LATER},
        f"{BY_FINISH} AND finished_at>? AND finished_at<?",
    ),
    "failed within": ({"time": "finished_at", "status": "failed", "since": DAY}, f"{BY_FINISH} AND finished_at>?"),
}


class Planned(View):
    """Keeps how each query would be worked off, besides working it off."""

    def __init__(self, view: View) -> None:
        super().__init__(view.connection)
        self.plans: list[list[str]] = []

    def records(self, kind: Any, sql: str, *values: Any) -> Any:
        """Keep the plan."""
        self._plan(sql, *values)
        return super().records(kind, sql, *values)

    def all(self, sql: str, *values: Any) -> Any:
        """Keep the plan."""
        self._plan(sql, *values)
        return super().all(sql, *values)

    def one(self, sql: str, *values: Any) -> Any:
        """Keep the plan."""
        self._plan(sql, *values)
        return super().one(sql, *values)

    def _plan(self, sql: str, *values: Any) -> None:
        rows = View(self.connection).all(f"EXPLAIN QUERY PLAN {sql}", *values)
        self.plans.append([row["detail"] for row in rows])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry with two resets, one of which has ended."""
    with World(tmp_path_factory.mktemp("registry")) as opened:
        device_id, _ = opened.bound()
        opened.cancel(device_id, opened.reset(device_id).id)
        opened.settle()
        opened.bind(device_id)
        opened.reset(device_id)
        yield opened


def plan_of(world: World, query: ListResets, device_pk: int | None = None) -> list[str]:
    """The steps in which a page is read."""
    view = Planned(world.view)
    reset_list.page(view, world.project_id, query, 20, device_pk)
    return view.plans[-1]


@pytest.mark.sqlite
@pytest.mark.parametrize("name", QUERIES)
def test_a_page_is_read_from_an_index_in_order(world: World, name: str) -> None:
    """Nothing is sorted and no table is read from end to end, on the first page and on those after it."""
    filters, index = QUERIES[name]
    query = ListResets.model_validate(filters)
    first = reset_list.page(world.view, world.project_id, ListResets(time=query.time), 20)[0]
    pages = [plan_of(world, query), plan_of(world, query.model_copy(update={"cursor": first.command_id}))]
    for steps in pages:
        reads = [step for step in steps if step.startswith(("SEARCH", "SCAN"))]
        assert reads[0].startswith("SEARCH r USING INDEX"), steps
        assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], steps
    assert index in pages[0][0]


@pytest.mark.sqlite
def test_the_resets_of_a_device_are_found_by_it(world: World) -> None:
    """A device has few, and they alone are looked at."""
    device_pk = world.device(next(iter(world.view.all("SELECT id FROM devices")))["id"]).pk
    for filters in ({}, {"status": "open"}, {"status": "cancelled"}, {"time": "finished_at"}):
        steps = plan_of(world, ListResets.model_validate(filters), device_pk)
        assert "SEARCH r USING INDEX resets_by_device (device_pk=?)" in steps
        assert not [step for step in steps if step.startswith("SCAN")], steps


@pytest.mark.sqlite
def test_the_summary_reads_indexes_alone(world: World) -> None:
    """Both counts come from covering indexes, so that a hundred thousand resets are a matter of milliseconds."""
    view = Planned(world.view)
    reset_list.summary(view, world.project_id, SummarizeResets.model_validate({"since": DAY}), world.now)
    opened, finished = view.plans
    assert opened == ["SEARCH resets USING COVERING INDEX resets_by_outcome (project_id=? AND outcome=?)"]
    assert finished[0] == "SEARCH resets USING COVERING INDEX resets_by_finish (project_id=? AND finished_at>?)"
