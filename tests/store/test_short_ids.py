"""Indexes hold a few characters of a project's id: two projects that have them in common stay apart."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.models.devices import ListDevices
from gateway.store import (
    Row,
    Tx,
    View,
    binding_sql,
    device_count_sql,
    device_list,
    device_totals,
    erasure_sql,
    person_sql,
    project_mark_sql,
    signing_key_sql,
)
from tests.domain.support import World

SAME = "ABC123"
OURS, THEIRS = (f"proj_01K{first * 17}{SAME}" for first in "AB")
KIDS = ("12345678first", "12345678second")
FILTERS: list[dict[str, Any]] = [
    {},
    {"sort": "name"},
    {"sort": "updated_at"},
    {"sort": "serial_number"},
    {"end_user_id": "eu_1"},
    {"model": "bota_pin"},
    {"status": "bound"},
    {"search": "ward"},
    {"offset": 1},
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with two such projects, each with two devices that are bound to the same person."""
    with World(tmp_path) as world:
        for project_id in (OURS, THEIRS):
            world.run(_add_project, project_id)
            world.project_id = project_id
            for number in range(2):
                world.bind(world.register(f"SN-{number}", name=f"Ward eu_1 {number}"), "eu_1")
        world.project_id = OURS
        yield world


def _add_project(tx: Tx, project_id: str) -> None:
    tx.run("INSERT INTO projects (id, name, created_at) VALUES (?, ?, 1)", project_id, project_id)


@pytest.mark.parametrize("query", FILTERS, ids=str)
def test_a_list_has_the_devices_of_its_project_alone(world: World, query: dict[str, Any]) -> None:
    """In each order, with each filter; the total, too."""
    wanted = ListDevices.model_validate(query)
    found = device_list.page(world.view, OURS, wanted)
    assert [each.device.project_id for each in found] == [OURS] * (2 - wanted.offset)
    assert device_totals.total(world.view, OURS, wanted.model_copy(update={"model": "bota_pin"})).count == 2


def test_counts_are_apart(world: World) -> None:
    """Those that doctor counts are those that are kept."""
    assert device_count_sql.counted(world.view) == device_count_sql.kept(world.view)
    assert device_count_sql.counted(world.view)[OURS].bound == 2


def test_an_erasure_finds_the_persons_bindings_in_its_project_alone(world: World) -> None:
    """Her devices and bindings in the other project stay as they are."""
    assert len(erasure_sql.bound_devices(world.view, OURS, "eu_1", 10)) == 2
    assert world.run(erasure_sql.rename_bindings, OURS, "eu_1", "gone") == 2
    assert not binding_sql.of_person(world.view, OURS, "eu_1")
    assert {each.project_id for each in binding_sql.of_person(world.view, THEIRS, "eu_1")} == {THEIRS}


def test_mentions_are_found_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each device of the project once, deleted ones included."""
    monkeypatch.setattr(person_sql, "CHUNK", 1)
    world.run(_delete, OURS)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        some, after = person_sql.mentions_in_devices(world.view, OURS, "eu_1", after)
        found += [each.id for each in some]
    assert found == [row["id"] for row in _devices(world.view, OURS)]
    assert len(found) == 2


def _devices(view: View, project_id: str) -> list[Row]:
    return view.all("SELECT id FROM devices WHERE project_id = ? ORDER BY serial_number", project_id)


def _delete(tx: Tx, project_id: str) -> None:
    tx.run("UPDATE devices SET deleted_at = 1 WHERE project_id = ? AND serial_number = 'SN-0'", project_id)


def test_a_new_integrator_has_the_states_of_its_project_marked(world: World) -> None:
    """No device of the other project is published for it."""
    world.run(lambda tx: tx.run("DELETE FROM outbox"))
    world.run(project_mark_sql.begin, OURS)
    marked = world.view.all("SELECT DISTINCT d.project_id FROM outbox o JOIN devices d ON d.pk = o.device_pk")
    assert [row[0] for row in marked] == [OURS]


def test_devices_of_signing_keys_are_apart(world: World) -> None:
    """Of two keys whose ids begin alike each has its own devices."""
    for number, kid in enumerate(KIDS):
        world.run(signing_key_sql.insert_signing_key, kid, "", bytes(32))
        world.run(_rely_on, kid, number + 1)
    found = {each.kid: each.devices for each in signing_key_sql.signing_keys(world.view)}
    assert [found[kid] for kid in KIDS] == [1, 1]
    assert [len(signing_key_sql.relying_on(world.view, kid)) for kid in KIDS] == [1, 1]


def _rely_on(tx: Tx, kid: str, device_pk: int) -> None:
    tx.run("UPDATE tokens SET grant_kid = ? WHERE device_pk = ?", kid, device_pk)
