"""One device cannot fill the audit trail, and integrators that follow the events still learn the true state."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import heartbeats
from gateway.store import Rules
from gateway.store.event_budget_sql import SAVED_HOURS
from tests.domain.support import World

PER_HOUR = 12
SAVED = PER_HOUR * SAVED_HOURS
SHARE_MS = 3_600_000 // PER_HOUR
FLOOD = 1_000
WELL = {"battery_percent": 80, "flags": 0, "firmware_version": "1.0"}
ILL = {"battery_percent": 5, "flags": 4, "firmware_version": "2.0"}
KINDS = ("device.low_battery", "device.storage_full", "device.updated")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path, rules=Rules(device_events_per_hour=PER_HOUR)) as opened:
        yield opened


def told(world: World, kind: str) -> list[dict[str, Any]]:
    """The data of all events of this type, oldest first."""
    return [
        json.loads(row["data"]) for row in world.view.all("SELECT data FROM events WHERE type = ? ORDER BY seq", kind)
    ]


def test_a_toggling_device_causes_a_bounded_number_of_events(world: World) -> None:
    """Battery, storage and firmware change with each heartbeat; the other device still causes its own events."""
    device_id, _ = world.bound()
    other_id, _ = world.bound("SN-2")
    for _ in range(FLOOD):
        world.beat(device_id, **WELL)
        world.beat(device_id, **ILL)
        world.now += 1_000
    in_time = FLOOD * 1_000 // SHARE_MS
    for kind in KINDS:
        assert SAVED <= len(told(world, kind)) <= SAVED + in_time, kind
    assert [tuple(row) for row in world.view.all("SELECT low_battery, storage_full FROM health")] == [(1, 1)]
    assert world.device(device_id).firmware_version == "2.0"
    world.beat(other_id, **ILL)
    assert [event["device_id"] for event in told(world, "device.low_battery")][-1] == other_id


def test_suppressed_events_are_counted_and_reported_once(world: World) -> None:
    """The next event says how many there were, the one after it says nothing of them."""
    device_id, _ = world.bound()
    for _ in range(SAVED + 6):
        world.beat(device_id, **WELL)
        world.beat(device_id, **ILL)
    assert not [data for data in told(world, "device.low_battery") if "suppressed" in data]
    world.beat(device_id, **WELL)
    for _ in range(2):
        world.now += SHARE_MS
        world.beat(device_id, **ILL)
        world.beat(device_id, **WELL)
    assert [data.get("suppressed") for data in told(world, "device.low_battery")[SAVED:]] == [6, None]


def test_a_suppressed_state_is_recorded_once_the_budget_allows(world: World) -> None:
    """A device whose last turn was suppressed stays as it is: the next heartbeat with room tells."""
    device_id, _ = world.bound()
    for _ in range(SAVED + 1):
        world.beat(device_id, **WELL)
        world.beat(device_id, **ILL)
    assert [len(told(world, kind)) for kind in KINDS] == [SAVED] * 3
    world.beat(device_id)
    assert [len(told(world, kind)) for kind in KINDS] == [SAVED] * 3, "there was no room yet"
    world.now += SHARE_MS
    for _ in range(3):
        world.beat(device_id)
    assert [len(told(world, kind)) for kind in KINDS] == [SAVED + 1] * 3
    assert told(world, "device.updated")[-1]["firmware_version"] == "2.0"


def test_a_flapping_device_keeps_its_last_recorded_state(world: World) -> None:
    """Of presence both words come or none: ``offline`` is told of a device that was told to be online, and always."""
    device_id, _ = world.bound()
    for _ in range(SAVED + 5):
        world.beat(device_id)
        flap(world, device_id)
    presence = [kind for kind in world.events() if kind in ("device.online", "device.offline")]
    assert presence == ["device.online", "device.offline"] * (len(presence) // 2)
    assert len(presence) < 2 * (SAVED + 5)
    world.beat(device_id)
    assert world.device(device_id).connection == "online"
    world.now += SHARE_MS
    world.beat(device_id)
    assert told(world, "device.online")[-1]["suppressed"] >= 1
    flap(world, device_id)
    assert world.events()[-1] == "device.offline"


def flap(world: World, device_id: str) -> None:
    """Send its offline message, and process it at once, because the clock stands still."""
    world.say(world.names.status(device_id), {"status": "offline"})
    world.connection.execute("UPDATE health SET offline_due_at = ?", (world.now,))
    assert world.run(heartbeats.sweep_presence) == 1


def test_a_clock_that_is_set_back_suppresses_no_events(world: World) -> None:
    """What was paid for at a time that is to come counts no more."""
    device_id, _ = world.bound()
    world.beat(device_id, **ILL)
    world.beat(device_id, **WELL)
    world.now -= 30 * 86_400_000
    world.beat(device_id, **ILL)
    assert len(told(world, "device.low_battery")) == 2


def test_without_a_limit_every_event_is_recorded(tmp_path: Path) -> None:
    """0 tells each."""
    with World(tmp_path, rules=Rules(device_events_per_hour=0)) as world:
        device_id, _ = world.bound()
        for _ in range(SAVED * 2):
            world.beat(device_id, **WELL)
            world.beat(device_id, **ILL)
        assert [len(told(world, kind)) for kind in KINDS[:2]] == [SAVED * 2] * 2


@pytest.mark.parametrize(
    ("threshold", "charges", "crossings"),
    [(20, (21, 20, 21, 20, 24, 20), 1), (20, (20, 25, 20), 2), (97, (97, 99, 97, 100, 97), 2), (20, (20, None, 20), 1)],
)
def test_battery_events_have_two_thresholds(
    world: World, threshold: int, charges: tuple[int | None, ...], crossings: int
) -> None:
    """One that lies at the threshold is low once, until it is charged five percent above it."""
    device_id, _ = world.bound()
    world.update(device_id, settings={"power": {"low_battery_threshold_percent": threshold}})
    for charge in charges:
        world.beat(device_id, battery_percent=charge)
    assert len(told(world, "device.low_battery")) == crossings


@pytest.mark.parametrize(
    ("words", "crossings"),
    [
        (({"flags": 0, "storage_used_mb": 990}, {"flags": 4}), 1),
        (({"flags": 0, "storage_used_mb": 950}, {"flags": 4}), 2),
        (({"flags": 0}, {"flags": 4}), 2),
        (({"flags": 0, "storage_used_mb": 990}, {}, {"battery_percent": 50}, {"flags": 4}), 1),
        (({"flags": 0, "storage_used_mb": 990}, {"flags": 0}, {"flags": 4}), 2),
    ],
)
def test_storage_events_have_two_thresholds(world: World, words: tuple[dict[str, Any], ...], crossings: int) -> None:
    """One that was full has room again at five percent, if it says how much; its word counts where it does not."""
    device_id, _ = world.bound()
    world.beat(device_id, flags=4, storage_used_mb=1_000, storage_total_mb=1_000)
    for word in words:
        world.beat(device_id, **word)
    assert len(told(world, "device.storage_full")) == crossings
