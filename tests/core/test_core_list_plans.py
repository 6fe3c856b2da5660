"""The list of devices stays quick with many devices: how SQLite goes about it, whatever is filtered."""

from pathlib import Path
from typing import Any

import pytest
from core_support import World

from gateway import model
from gateway.store import Row, View
from gateway.store import devices as sql

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
    with World(tmp_path) as world:
        plan = Planned(world.view)
        sql.page(plan, world.project_id, model.ListDevices(**query, limit=50))
    first, *others = plan.steps
    assert first.startswith("SEARCH d USING INDEX devices_")
    for step in others:
        assert "TEMP B-TREE" not in step
        assert not step.startswith("SCAN") or "commands_one_open" in step, step
    assert [step for step in others if step.startswith("SEARCH h USING INTEGER PRIMARY KEY")]
