"""Old heartbeats are thinned to one row for each hour, binding and device; nothing is counted twice or lost."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from gateway.domain import devices, heartbeats
from gateway.store import Rules, binding_sql, heartbeat_sql, thinned_sql
from gateway.store.heartbeat_sql import Period
from gateway.store.thinned_sql import ThinnedHour
from tests.domain.support import World

RULES = Rules(heartbeat_raw_days=1, heartbeat_history_days=3)
EVER = Period(0, 1 << 52)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry that keeps heartbeats for a day, and their hours for three; its clock stands at the full hour."""
    with World(tmp_path, rules=RULES) as world:
        world.now -= world.now % HOUR_MS
        yield world


def hours(world: World, device_id: str) -> list[ThinnedHour]:
    """What was thinned of a device, newest first."""
    return thinned_sql.page(world.view, world.device(device_id).pk, EVER, after=None, limit=1_000, every=None)


def raw(world: World, device_id: str) -> int:
    """How many heartbeats a device has as they were received."""
    pk = world.device(device_id).pk
    return len(heartbeat_sql.page(world.view, pk, EVER, after=None, limit=1_000, every=None))


def grow_old(world: World) -> None:
    """Let a day pass, and prune until nothing is left to do."""
    world.now += DAY_MS + 1
    while world.run(heartbeats.prune):
        pass


def test_an_hour_has_first_last_least_and_greatest(world: World) -> None:
    """Of what varies; the rest is as the last heartbeat said it."""
    device_id, _ = world.bound()
    for battery, signal, waiting in ((50, -70, 3), (40, -50, 9), (45, -60, 1)):
        world.beat(device_id, battery_percent=battery, signal_strength_dbm=signal, pending_recordings=waiting)
        world.now += MINUTE_MS
    last = world.now - MINUTE_MS
    grow_old(world)
    (hour,) = hours(world, device_id)
    assert raw(world, device_id) == 0
    assert (hour.heartbeats, hour.first_received_at, hour.received_at) == (3, last - 2 * MINUTE_MS, last)
    assert (hour.battery_percent_first, hour.battery_percent_min, hour.battery_percent_max) == (50, 40, 50)
    assert (hour.battery_percent, hour.signal_strength_dbm) == (45, -60)
    assert (hour.signal_strength_dbm_min, hour.signal_strength_dbm_max) == (-70, -50)
    assert (hour.pending_recordings, hour.pending_recordings_max) == (1, 9)
    assert (hour.storage_used_mb, hour.storage_used_mb_min) == (None, None)


@pytest.mark.parametrize("seed", range(3))
def test_an_hour_that_is_thinned_in_parts_is_the_same(world: World, seed: int) -> None:
    """However many heartbeats are thinned at a time, also when some say nothing of a value."""
    rng = random.Random(seed)  # noqa: S311 - a test that can be repeated
    device_id, _ = world.bound()
    said: dict[int, list[int | None]] = {}
    for _ in range(100):
        battery = rng.choice((None, rng.randrange(100)))
        said.setdefault(world.now // HOUR_MS, []).append(battery)
        world.beat(device_id, battery_percent=battery)
        world.now += MINUTE_MS
    while world.run(thinned_sql.thin, world.now, rng.randrange(1, 9)):
        pass
    assert raw(world, device_id) == 0
    found = {hour.hour: hour for hour in hours(world, device_id)}
    assert found.keys() == said.keys()
    for number, values in said.items():
        hour, known = found[number], [each for each in values if each is not None]
        assert (hour.heartbeats, hour.battery_percent_first, hour.battery_percent) == (
            len(values),
            values[0],
            values[-1],
        )
        assert (hour.battery_percent_min, hour.battery_percent_max) == (min(known), max(known))


def test_an_hour_of_two_people_is_two_rows(world: World) -> None:
    """So what belongs to one of them can be exported and erased alone."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=10)
    world.run(devices.unbind, world.project_id, device_id, "key_1")
    world.bind(device_id, "eu_2")
    world.beat(device_id, battery_percent=20)
    world.beat(device_id, battery_percent=30)
    grow_old(world)
    assert [(each.heartbeats, each.battery_percent_min) for each in hours(world, device_id)] == [(2, 20), (1, 10)]
    (binding,) = binding_sql.of_person(world.view, world.project_id, "eu_1")
    (theirs,) = thinned_sql.of_binding(world.view, binding, below=thinned_sql.NEVER, limit=9)
    assert theirs.battery_percent == 10
    assert world.run(thinned_sql.delete_of_binding, binding, 9) == 1
    assert [each.heartbeats for each in hours(world, device_id)] == [2]


def test_hours_are_deleted_with_the_history(world: World) -> None:
    """After ``heartbeat_history_days``, the hour as a whole."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=10)
    grow_old(world)
    assert len(hours(world, device_id)) == 1
    world.now += 2 * DAY_MS
    world.run(heartbeats.prune)
    assert len(hours(world, device_id)) == 1
    world.now += HOUR_MS
    world.run(heartbeats.prune)
    assert hours(world, device_id) == []


def test_what_is_too_old_is_not_thinned(world: World) -> None:
    """A gateway that was off for a week deletes it at once."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=10)
    world.now += 7 * DAY_MS
    world.run(heartbeats.prune)
    assert (raw(world, device_id), hours(world, device_id)) == (0, [])


def test_nothing_is_thinned_by_default(tmp_path: Path) -> None:
    """Both ages are the same."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        world.beat(device_id, battery_percent=10)
        world.now += 30 * DAY_MS + 1
        world.run(heartbeats.prune)
        assert (raw(world, device_id), hours(world, device_id)) == (0, [])
