"""Lists of events stay quick with many events: how each engine reads a page, whatever is filtered."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.models.events import ListProjectEvents
from gateway.store import View, event_list
from gateway.store.postgres.engine import open_registry
from tests.domain.support import World
from tests.support.postgres import database

DAY = "2026-11-10T00:00:00Z"
BY_ACTOR, BY_DEVICE = "events_by_actor (project_id=? AND actor=? AND seq<?", "events_by_device (device_pk=? AND seq<?"
BY_TIME = "events_by_time (<expr>=? AND created_at"
QUERIES: dict[str, tuple[dict[str, Any], str]] = {
    "all": ({}, "events_by_project (project_id=? AND seq<?"),
    "a period": ({"since": DAY, "until": DAY}, BY_TIME),
    "an end": ({"until": DAY}, BY_TIME),
    "a type": ({"type": "device.bound"}, "events_by_type (project_id=? AND type=? AND seq<?"),
    "a device": ({"device_id": "dev_1"}, BY_DEVICE),
    "a key": ({"actor": "key_1"}, BY_ACTOR),
    "a person": ({"actor": "user:1"}, BY_ACTOR),
    "a device as actor": ({"actor": "dev_1"}, BY_DEVICE),
    "a key and a type": ({"actor": "key_1", "type": "device.bound"}, BY_ACTOR),
    "a key within a period": ({"actor": "key_1", "since": DAY, "until": DAY}, BY_ACTOR),
    "a key at a device": ({"actor": "key_1", "device_id": "dev_1"}, BY_DEVICE),
    "all of these": ({"actor": "key_1", "device_id": "dev_1", "type": "device.bound", "since": DAY}, BY_DEVICE),
}
MANY = 20_000


class Planned(View):
    """Keeps how each query would be worked off, besides working it off."""

    def __init__(self, view: View, explain: str) -> None:
        super().__init__(view.connection)
        self.explain = explain
        self.plans: list[list[str]] = []

    def records(self, kind: Any, sql: str, *values: Any) -> Any:
        """Keep the plan."""
        self.plans.append([str(list(row)) for row in View(self.connection).all(f"{self.explain} {sql}", *values)])
        return super().records(kind, sql, *values)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry with some events."""
    with World(tmp_path_factory.mktemp("registry")) as opened:
        opened.bound()
        yield opened


@pytest.mark.sqlite
@pytest.mark.parametrize("name", QUERIES)
def test_sqlite_reads_a_page_from_an_index_in_order(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The first page and later ones: nothing is sorted, and no table is read from end to end."""
    monkeypatch.setattr(event_list, "FEW", -1)
    filters, index = QUERIES[name]
    for before in (None, 2):
        view = Planned(world.view, "EXPLAIN QUERY PLAN")
        event_list.page_of_project(view, world.project_id, ListProjectEvents.model_validate(filters), before, 20)
        steps = view.plans[-1]
        assert f"SEARCH e USING INDEX {index}" in steps[0], steps
        assert not [each for each in steps if "SCAN" in each or "TEMP B-TREE" in each], steps


@pytest.mark.sqlite
@pytest.mark.parametrize("name", [name for name, (filters, _) in QUERIES.items() if "since" in filters])
def test_sqlite_reads_the_few_events_of_a_period(world: World, name: str) -> None:
    """Whatever else is filtered: they alone are looked at. A device has few events anyway."""
    filters, index = QUERIES[name]
    view = Planned(world.view, "EXPLAIN QUERY PLAN")
    event_list.page_of_project(view, world.project_id, ListProjectEvents.model_validate(filters), None, 20)
    assert (index if index in (BY_TIME, BY_DEVICE) else "INTEGER PRIMARY KEY (rowid=?)") in view.plans[-1][0]


@pytest.mark.sqlite
def test_sqlite_enters_an_index_once_for_each_actor(world: World) -> None:
    """Events are not counted or grouped, so the list of actors costs the same with a million of them."""
    view = Planned(world.view, "EXPLAIN QUERY PLAN")
    assert [each.actor for each in event_list.actors(view, world.project_id)] == ["key_1"]
    (steps,) = view.plans
    reads = [each for each in steps if "events_by_actor" in each]
    assert [each.partition("events_by_actor (")[2].partition(")")[0] for each in reads] == [
        "project_id=? AND actor>?",
        "project_id=? AND actor>?",
        *("project_id=? AND actor=?" for _ in ("seq", "created_at", "data")),
    ]
    assert not [each for each in steps if "SCAN e" in each], steps


def test_postgresql_reads_an_actors_page_from_its_index(tmp_path: Path) -> None:
    """Also where all of the actor's events are old, which an index of the project's order finds last."""
    with closing(open_registry(database(tmp_path))) as connection:
        view = Planned(View(connection), "EXPLAIN")
        connection.execute(
            """INSERT INTO events (seq, id, project_id, type, created_at, data, actor)
                SELECT n, 'evt_' || n, 'proj_1', 'device.bound', n, '{"actor": "x"}',
                    CASE WHEN n <= 50 THEN 'key_old' WHEN n % 3 = 0 THEN 'key_new' WHEN n % 3 = 1 THEN 'gateway' END
                FROM generate_series(1, ?::bigint) AS n""",
            (MANY,),
        )
        connection.execute("ANALYZE events")
        for actor in ("key_old", "key_new", "key_none"):
            for before in (None, 1_000):
                event_list.page_of_project(view, "proj_1", ListProjectEvents(actor=actor), before, 20)
                assert "using events_by_actor" in view.plans[-1][1], view.plans[-1]
                assert not [each for each in view.plans[-1] if "Sort" in each or "Seq Scan" in each], view.plans[-1]
        assert [each.actor for each in event_list.actors(view, "proj_1")] == ["gateway", "key_new", "key_old"]
        assert not [each for each in view.plans[-1] if "Seq Scan" in each], view.plans[-1]
