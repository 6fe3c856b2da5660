"""Tags of a device: sorted, each once, recorded when they change, found by the index, kept with the device."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import InvalidRequestError
from gateway.models.devices import ListDevices
from gateway.store import device_list, device_sql, device_stats, tag_sql
from tests.domain.support import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def tags(world: World, device_id: str) -> Any:
    """The tags as the API shows them."""
    return device_sql.fields(world.record(device_id))["tags"]


def with_tags(world: World, *wanted: str) -> list[str]:
    """The serial numbers of the devices with these tags, the newest first."""
    rows = device_list.page(world.view, world.project_id, ListDevices(tag=list(wanted)))
    return [each.device.serial_number for each in rows]


def check_index(world: World) -> None:
    """The index has a row for each tag of each device that is not deleted, and no other."""
    rows = world.view.all("SELECT pk, project_id, tags FROM devices WHERE deleted_at IS NULL")
    expected = {(row["project_id"], tag, row["pk"]) for row in rows for tag in tag_sql.split(row["tags"])}
    assert {tuple(row) for row in world.view.all("SELECT project_id, tag, device_pk FROM device_tags")} == expected


def test_tags_are_replaced_added_and_removed(world: World) -> None:
    """Sorted by their bytes, each once; the event tells all that the device has now."""
    device_id = world.register()
    assert tags(world, device_id) == []
    world.now += 1_000
    device = world.update(device_id, tags=["ward-3", "Pilot", "ward-3", "a:b_c.d"])
    assert tags(world, device_id) == ["Pilot", "a:b_c.d", "ward-3"]
    assert device.updated_at == world.now
    assert world.events() == ["device.registered", "device.updated"]
    expected = {"device_id": device_id, "actor": "key_1", "tags": ["Pilot", "a:b_c.d", "ward-3"]}
    assert world.facts() == expected
    world.update(device_id, add_tags=["b", "Pilot"], remove_tags=["ward-3", "never"])
    assert tags(world, device_id) == world.facts()["tags"] == ["Pilot", "a:b_c.d", "b"]
    world.update(device_id, tags=[])
    assert tags(world, device_id) == world.facts()["tags"] == []
    check_index(world)


@pytest.mark.parametrize(
    "change",
    [
        {"tags": ["b", "a", "b"]},
        {"add_tags": ["a"]},
        {"remove_tags": ["c"]},
        {"add_tags": [], "remove_tags": []},
        {"add_tags": ["b"], "remove_tags": ["c"]},
    ],
)
def test_unchanged_tags_record_no_event(world: World, change: dict[str, Any]) -> None:
    """Before and after are the same, to the byte."""
    device_id = world.register()
    world.update(device_id, tags=["a", "b"])
    before = world.dump()
    world.now += 1_000
    world.update(device_id, **change)
    assert world.dump() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tags": ["a"], "add_tags": ["b"]}, "tags"),
        ({"tags": [], "remove_tags": ["b"]}, "tags"),
        ({"add_tags": ["a", "b"], "remove_tags": ["b"]}, "remove_tags"),
        ({"add_tags": [f"t{number}" for number in range(32)]}, "add_tags"),
        ({"name": "x", "add_tags": [f"t{number}" for number in range(32)]}, "add_tags"),
    ],
)
def test_a_change_that_contradicts_itself_is_refused(world: World, change: dict[str, Any], field: str) -> None:
    """The field is named, and nothing is changed."""
    device_id = world.register()
    world.update(device_id, tags=["kept"])
    before = world.dump()
    with pytest.raises(InvalidRequestError, match=f"^{field}: ") as refusal:
        world.update(device_id, **change)
    assert refusal.value.details == {"field": field}
    assert world.dump() == before


def test_a_tag_can_make_room_for_another(world: World) -> None:
    """At 32, one is added and one is removed in one change."""
    device_id = world.register()
    world.update(device_id, tags=[f"t{number:02}" for number in range(32)])
    world.update(device_id, add_tags=["new"], remove_tags=["t00"])
    assert len(tags(world, device_id)) == 32
    assert "new" in tags(world, device_id)


def test_tags_stay_with_the_device(world: World) -> None:
    """Over bind, unbind, reset and a new bind; a deleted device is in no list, a restored one has its tags again."""
    device_id, _ = world.bound("SN-1")
    world.update(device_id, tags=["a", "b"])
    world.unbind(device_id)
    world.bind(device_id, "eu_2")
    command = world.reset(device_id)
    world.cancel(device_id, command.id)
    assert with_tags(world, "a", "b") == ["SN-1"]
    world.delete(device_id)
    check_index(world)
    assert (with_tags(world, "a"), tags(world, device_id)) == ([], ["a", "b"])
    assert device_stats.count(world.view, world.project_id, ["a"]).total_count == 0
    world.restore(device_id)
    check_index(world)
    assert (with_tags(world, "b"), tags(world, device_id)) == (["SN-1"], ["a", "b"])


def test_devices_are_counted_by_tags(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By state, as without tags; several must all match; another project has its own."""
    for number in range(6):
        device_id, _ = world.bound(f"SN-{number}")
        world.update(device_id, tags=["all", *(["odd"] if number % 2 else []), *(["low"] if number > 2 else [])])
        if number > 1:
            world.beat(device_id, battery_percent=5)
        if number == 5:
            world.reset(device_id)
    counts = device_stats.count(world.view, world.project_id, ["odd", "low", "odd"])
    assert counts.model_dump() == {
        "project_id": world.project_id,
        "total_count": 2,
        "online_count": 2,
        "offline_count": 0,
        "never_seen_count": 0,
        "low_battery_count": 2,
        "storage_full_count": 0,
        "pending_reset_count": 1,
        "is_exact": True,
    }
    plain = device_stats.count(world.view, world.project_id)
    assert device_stats.count(world.view, world.project_id, ["all"]) == plain
    assert device_stats.count(world.view, world.project_id, ["never"]).total_count == 0
    assert device_stats.count(world.view, "proj_other", ["all"]).total_count == 0
    for most, exact in ((6, True), (5, False)):
        monkeypatch.setattr(device_stats, "MOST_COUNTED", most)
        assert device_stats.count(world.view, world.project_id, ["all"]).is_exact is exact


def test_the_index_follows_every_change(world: World) -> None:
    """After any sequence of changes each tag finds the devices that have it."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it on failure
    chance = random.Random(seed)  # noqa: S311 - a test wants to repeat it
    names = ["a", "b", "c", "d"]
    devices = {world.register(f"SN-{number}"): set[str]() for number in range(5)}
    for _ in range(80):
        device_id = chance.choice(list(devices))
        if world.record(device_id).deleted_at is not None:
            world.restore(device_id)
            continue
        some = chance.sample(names, chance.randrange(3))
        match chance.randrange(4):
            case 0:
                world.delete(device_id)
            case 1:
                world.update(device_id, tags=some)
                devices[device_id] = set(some)
            case 2:
                world.update(device_id, add_tags=some)
                devices[device_id] |= set(some)
            case _:
                world.update(device_id, remove_tags=some)
                devices[device_id] -= set(some)
        assert tags(world, device_id) == sorted(devices[device_id])
        check_index(world)
    for name in names:
        living = [each for each, has in devices.items() if name in has and world.record(each).deleted_at is None]
        assert len(with_tags(world, name)) == len(living)
