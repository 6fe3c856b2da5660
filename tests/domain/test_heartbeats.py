"""What a device says of itself: stored once, judged once, and not at all while it waits for its reset."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain import heartbeats
from gateway.store import Rules, heartbeat_partition_sql
from tests.domain.support import World

SENT = "2026-11-10T11:59:58.5Z"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def _history(world: World) -> int:
    departed = heartbeat_partition_sql.departed(world.view)
    count: int = world.view.value("SELECT count(*) FROM heartbeats WHERE id > ?", departed)
    return count


def test_a_heartbeat_updates_state_and_history(world: World) -> None:
    """Its fields become the device's, and a line of its history with the radio it came over."""
    device_id, _ = world.bound()
    body = {
        "battery_percent": 80.5,
        "storage_used_mb": 1,
        "signal_strength_dbm": -60,
        "pending_recordings": 2,
        "flags": 24,
    }
    assert world.beat(device_id, sent_at=SENT, device_state="idle", **body) is None
    device = world.device(device_id)
    assert (device.battery_percent, device.recording_state, device.last_seen_by) == (80.5, "idle", "wifi")
    assert device.last_heartbeat_at == world.now
    kept = world.view.one("SELECT * FROM heartbeats")
    assert kept is not None
    assert (kept["received_at"], kept["sent_at"], kept["radio"]) == (world.now, world.now - 1_500, "wifi")
    assert (kept["device_state"], kept["flags"], kept["pending_recordings"]) == ("idle", 24, 2)


def test_fields_missing_in_a_heartbeat_keep_their_value(world: World) -> None:
    """An empty one shows presence and changes nothing of what was known."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=80, storage_used_mb=7, storage_total_mb=9)
    world.now += 1_000
    world.beat(device_id)
    device = world.device(device_id)
    assert (device.battery_percent, device.storage_used_mb, device.storage_total_mb) == (80, 7, 9)
    assert (device.last_heartbeat_at, _history(world)) == (world.now, 2)


def test_a_replayed_heartbeat_is_stored_once(world: World) -> None:
    """Same device, same ``sent_at``, whatever else it says; another device's is its own."""
    device_id, _ = world.bound()
    other_id, _ = world.bound("SN-2")
    world.beat(device_id, sent_at=SENT, battery_percent=50)
    world.beat(device_id, sent_at=SENT, battery_percent=10)
    world.beat(device_id, sent_at="2026-11-10T12:59:58.500+01:00", battery_percent=10)
    assert (_history(world), world.device(device_id).battery_percent) == (1, 50)
    assert "device.low_battery" not in world.events()
    world.beat(other_id, sent_at=SENT)
    assert _history(world) == 2


def test_heartbeats_without_a_time_are_each_stored(world: World) -> None:
    """Nothing tells a replay from a new one, so each is stored."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=50)
    world.beat(device_id, battery_percent=50)
    assert _history(world) == 2


def test_a_device_that_waits_for_its_reset_shows_presence_alone(world: World) -> None:
    """``reset_only``: no telemetry, no history, no firmware, no event but that it is there."""
    device_id, _ = world.bound()
    world.reset(device_id)
    seen = len(world.events())
    body = {
        "battery_percent": 3,
        "flags": 6,
        "firmware_version": "9.9",
        "device_state": "storageFull",
        "connection_type": ["4g"],
    }
    assert world.beat(device_id, sent_at=SENT, **body) is None
    device = world.device(device_id)
    assert (device.battery_percent, device.recording_state, device.firmware_version) == (None, None, None)
    assert (device.connection, device.last_seen_by) == ("online", "4g")
    assert _history(world) == 0
    assert world.events(seen) == ["device.online"]


@pytest.mark.parametrize("low", [{"battery_percent": 20}, {"flags": 2}, {"device_state": "lowBattery"}])
def test_a_low_battery_is_recorded_once_per_crossing(world: World, low: dict[str, object]) -> None:
    """By its percentage (at or below the threshold), its flag or its state; again only after a recovery."""
    device_id, _ = world.bound()
    good = {"battery_percent": 80, "flags": 0, "device_state": "idle"}
    world.beat(device_id, **good)
    for _ in range(3):
        world.beat(device_id, **{**good, **low})
    assert world.events().count("device.low_battery") == 1
    world.beat(device_id, **good)
    world.beat(device_id, **{**good, **low})
    assert world.events().count("device.low_battery") == 2


def test_a_low_battery_stays_low_without_a_new_value(world: World) -> None:
    """A device that tells its percentage now and its state then does not seem to recover in between."""
    device_id, _ = world.bound()
    for _ in range(3):
        world.beat(device_id, battery_percent=10)
        world.beat(device_id, device_state="idle")
        world.beat(device_id, flags=8)
        world.beat(device_id)
    assert world.events().count("device.low_battery") == 1


def test_the_threshold_is_the_devices_own(world: World) -> None:
    """From its settings."""
    device_id, _ = world.bound()
    world.connection.execute("""UPDATE devices SET settings = '{"power":{"low_battery_threshold_percent":50}}'""")
    world.beat(device_id, battery_percent=51)
    assert "device.low_battery" not in world.events()
    world.beat(device_id, battery_percent=50)
    assert world.events().count("device.low_battery") == 1


@pytest.mark.parametrize("full", [{"flags": 4}, {"device_state": "storageFull"}])
def test_full_storage_is_recorded_once_per_crossing(world: World, full: dict[str, object]) -> None:
    """By its flag or its state; one that speaks of neither changes nothing."""
    device_id, _ = world.bound()
    for body in (full, {}, {"battery_percent": 80}, full):
        world.beat(device_id, **body)
    assert world.events().count("device.storage_full") == 1
    world.beat(device_id, flags=0, device_state="idle")
    world.beat(device_id, **full)
    assert world.events().count("device.storage_full") == 2


def test_new_firmware_is_recorded_once(world: World) -> None:
    """When it differs from what the registry knew."""
    device_id, _ = world.bound()
    for version in ("1.0", "1.0", "1.1"):
        world.beat(device_id, firmware_version=version)
    assert world.events().count("device.updated") == 2
    assert world.device(device_id).firmware_version == "1.1"


def test_old_history_and_events_are_deleted(tmp_path: Path) -> None:
    """What is older than the settings keep goes, the oldest first; the rest stays."""
    with World(tmp_path, rules=Rules(heartbeat_history_days=1, event_history_days=2)) as world:
        device_id, _ = world.bound()
        world.beat(device_id, battery_percent=10)
        world.now += 86_400_001
        world.beat(device_id, battery_percent=9)
        assert world.run(heartbeats.prune) == 1
        assert (_history(world), world.run(heartbeats.prune)) == (1, 0)
        world.now += 86_400_001
        assert world.run(heartbeats.prune) == 5
        assert (_history(world), world.events()) == (0, [])
        assert world.device(device_id).battery_percent == 9
