"""What people change of a device: merged, checked, told, and nothing when nothing changes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRequestError, NotFoundError
from gateway.models import device_settings
from gateway.models.device_settings import with_defaults
from gateway.store import device_sql, key_sql
from tests.domain.support import World

DEFAULTS = with_defaults({})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def metadata(world: World, device_id: str) -> Any:
    """The metadata as the API shows it."""
    return device_sql.fields(world.device(device_id))["metadata"]


# --- what changes and what is told ------------------------------------------------------------------------------------


def test_a_change_records_one_event_and_its_time(world: World) -> None:
    """Only what was given changes; the event tells the new values and who did it."""
    device_id = world.register(name="Bed 2", metadata={"ward": 3})
    world.now += 1_000
    device = world.update(device_id, name="Bed 3", settings={"audio": {"codec": "wav"}})
    assert (device.name, device.updated_at, device.created_at) == ("Bed 3", world.now, world.now - 1_000)
    assert metadata(world, device_id) == {"ward": 3}
    assert world.events() == ["device.registered", "device.updated"]
    assert world.facts() == {
        "device_id": device_id,
        "actor": "key_1",
        "name": "Bed 3",
        "settings": {"audio": {"codec": "wav"}},
    }


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "Bed 2"},
        {"firmware_version": None},
        {"metadata": {}},
        {"metadata": {"ward": 3, "gone": None}},
        {"settings": {}},
        {"settings": {"audio": {}}},
        {"settings": DEFAULTS},
        {"settings": {"upload": {"off_peak_hours": None}}},
    ],
)
def test_an_unchanged_value_records_no_event(world: World, change: dict[str, Any]) -> None:
    """No event, no new ``updated_at``: before and after are the same, to the byte."""
    device_id = world.register(name="Bed 2", metadata={"ward": 3})
    before = world.dump()
    world.now += 1_000
    world.update(device_id, **change)
    assert world.dump() == before


@pytest.mark.parametrize("field", ["name", "firmware_version"])
def test_null_clears_a_text(world: World, field: str) -> None:
    """And is told as null."""
    device_id = world.register(name="Bed 2", firmware_version="1.0")
    assert getattr(world.update(device_id, **{field: None}), field) is None
    assert world.facts()[field] is None


def test_a_refused_change_changes_nothing(world: World) -> None:
    """Neither the wrong part nor the right one."""
    device_id = world.register()
    before = world.dump()
    with pytest.raises(InvalidRequestError):
        world.update(device_id, name="Bed 3", settings={"audio": {"codec": "mp3"}})
    assert world.dump() == before


def test_an_unknown_device_is_not_changed(world: World) -> None:
    """404 for another project's, a deleted and an unknown one."""
    device_id = world.register()
    world.delete(device_id)
    home, world.project_id = world.project_id, world.run(key_sql.create_project, "other ward")
    elsewhere = world.register("SN-9")
    world.project_id = home
    for each in (device_id, elsewhere, "dev_unknown"):
        with pytest.raises(NotFoundError):
            world.update(each, name="x")


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_is_null_until_set(world: World) -> None:
    """Nothing merged into nothing is nothing; the last key removed leaves an empty object."""
    device_id = world.register()
    for nothing in ({}, {"a": None}, None):
        world.update(device_id, metadata=nothing)
        assert metadata(world, device_id) is None
    world.update(device_id, metadata={"a": 1})
    world.update(device_id, metadata={"a": None})
    assert metadata(world, device_id) == {}
    world.update(device_id, metadata=None)
    assert metadata(world, device_id) is None


def test_metadata_is_merged_key_by_key(world: World) -> None:
    """A value replaces the old one as a whole; nulls inside of a value are the integrator's own."""
    device_id = world.register(metadata={"keep": [1], "ward": {"floor": 3, "bed": 1}, "gone": True})
    world.update(device_id, metadata={"ward": {"bed": None}, "gone": None, "new": 1.5})
    assert metadata(world, device_id) == {"keep": [1], "ward": {"bed": None}, "new": 1.5}
    assert world.facts()["metadata"] == {"ward": {"bed": None}, "gone": None, "new": 1.5}


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, 1.0), ({"a": 1}, {"a": True})])
def test_values_equal_only_in_python_count_as_changes(world: World, old: Any, new: Any) -> None:
    """JSON tells 1, 1.0 and true apart, and so do integrators."""
    device_id = world.register(metadata={"key": old})
    world.update(device_id, metadata={"key": new})
    assert json.dumps(metadata(world, device_id)) == json.dumps({"key": new})
    assert world.events()[-1] == "device.updated"


def test_metadata_is_bounded(world: World) -> None:
    """What is there counts, and the message says how to make room."""
    device_id = world.register(metadata={"a": "x" * 5_000})
    with pytest.raises(InvalidRequestError, match="8192 are the limit") as refusal:
        world.update(device_id, metadata={"b": "x" * 5_000})
    assert refusal.value.details == {"field": "metadata"}
    world.update(device_id, metadata={"a": None, "b": "x" * 5_000})


def test_the_schema_of_a_change_has_no_defaults() -> None:
    """A client that filled defaults in would set back what was left out; the schema needs no other schema."""
    text = json.dumps(device_settings.CHANGE_SCHEMA)
    assert '"default"' not in text
    assert "$ref" not in text
    assert set(device_settings.CHANGE_SCHEMA["properties"]) == set(DEFAULTS)
