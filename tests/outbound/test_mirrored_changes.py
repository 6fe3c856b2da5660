"""What counts as a change of what integrators are shown, and what it costs (contract, section 3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.topics import Topics
from gateway.domain import heartbeats
from gateway.outbound.states import StateTopic
from gateway.store import Rules, device_sql, outbox_sql
from tests.domain.support import World
from tests.support.outbox import outbox_depth

MIRROR = ("mirror", "state")
FIVE_MINUTES_MS = 300_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project, whose devices are shown."""
    with World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as opened:
        yield opened


@pytest.fixture
def device(world: World) -> str:
    """A device that is bound and has been heard; nothing is out of step."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=80, signal_strength_dbm=-60, firmware_version="1")
    world.settle()
    return device_id


def marked(world: World) -> bool:
    """Whether the state is out of step; it is in step afterwards."""
    found = MIRROR in world.outbox()
    world.settle()
    return found


def test_operations_on_a_device_are_changes(world: World) -> None:
    """Registered, bound, changed, reset, deleted, restored; what is no part of the device object is not."""
    device_id = world.register()
    assert marked(world)
    token = world.bind(device_id).device_token
    assert marked(world)
    world.update(device_id, name="Ward 3")
    assert marked(world)
    world.create(device_id)
    world.refresh(device_id, token)
    assert not marked(world)
    world.reset(device_id)
    assert marked(world)
    world.cancel(device_id, world.command(device_id).id)
    assert not marked(world)
    world.delete(device_id)
    assert marked(world)
    world.restore(device_id)
    assert marked(world)


@pytest.mark.parametrize(
    "said",
    [
        {"battery_percent": 79},
        {"storage_used_mb": 1},
        {"storage_total_mb": 8192},
        {"signal_strength_dbm": -61},
        {"device_state": "recording"},
        {"pending_recordings": 3},
        {"flags": 8},
        {"connection_type": ["wifi"]},
        {"connection_type": []},
        {"device_name": "mine"},
        {"firmware_version": "2"},
    ],
)
def test_a_heartbeat_with_a_new_value_is_a_change(world: World, device: str, said: dict[str, object]) -> None:
    """Each field of the device object."""
    world.beat(device, **said)
    assert marked(world)
    world.beat(device, **said)
    assert not marked(world)


def test_an_unchanged_heartbeat_is_no_change(world: World, device: str) -> None:
    """What is no part of the device object neither: nothing is written to the outbox at all."""
    world.beat(
        device,
        battery_percent=80,
        signal_strength_dbm=-60,
        firmware_version="1",
        sent_at="2026-11-10T11:59:58.5Z",
        more={"x": 1},
    )
    assert world.outbox() == []


def test_the_time_of_the_last_heartbeat_is_mirrored_at_intervals(world: World, device: str) -> None:
    """A heartbeat a minute with nothing new in it: one in five is told, whenever its five minutes begin."""
    told = []
    for _ in range(20):
        world.now += FIVE_MINUTES_MS // 5
        world.beat(device, battery_percent=80)
        told.append(marked(world))
    assert sum(told) == 4
    first = told.index(True)
    assert [number for number, each in enumerate(told) if each] == [first, first + 5, first + 10, first + 15]


def test_the_marks_of_a_fleet_are_spread(tmp_path: Path) -> None:
    """The five minutes of fifty devices that are heard together begin at many moments."""
    with World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as world:
        fleet = [world.bound(f"SN-{number}")[0] for number in range(50)]
        for device_id in fleet:
            world.beat(device_id, battery_percent=80)
        world.settle()
        told = []
        for _ in range(5):
            world.now += FIVE_MINUTES_MS // 5
            for device_id in fleet:
                world.beat(device_id, battery_percent=80)
            told.append(len(world.outbox()))
            world.settle()
    assert sum(told) == 50
    assert max(told) < 25


def test_presence_is_a_change(world: World, device: str) -> None:
    """Gone after a silence, and there again."""
    world.now += world.context.rules.silence_ms
    world.run(heartbeats.sweep_presence)
    assert marked(world)
    world.beat(device)
    assert marked(world)


def test_a_state_is_marked_once_however_often_it_changes(world: World, device: str) -> None:
    """The outbox holds one row a device, with a new number: a worker that holds the old number leaves the row."""
    for battery in range(70, 50, -1):
        world.beat(device, battery_percent=battery)
    rows = world.view.all("SELECT seq FROM outbox WHERE kind = 'mirror'")
    assert len(rows) == 1
    assert outbox_sql.newest(world.view) == rows[0]["seq"]


def test_nothing_is_marked_without_a_mirror(tmp_path: Path) -> None:
    """Switched off it costs nothing, and a bind does not wait for it where it is on."""
    with World(tmp_path) as world:
        device_id = world.register()
        world.beat(device_id, battery_percent=3)
        assert MIRROR not in world.outbox()
    with World(tmp_path / "on", rules=Rules(mirrored=(outbox_sql.STATE,))) as world:
        device = world.device(world.register())
        assert MIRROR in world.outbox()
        assert not outbox_sql.waits(world.view, device.pk)
        assert outbox_depth(world.view)[0] == 0


def test_the_time_of_the_last_heartbeat_is_not_compared(world: World, device: str) -> None:
    """Also where that is the name of a key or of a device."""
    leaf = StateTopic(Topics())
    world.update(device, name='"last_heartbeat_at":"x",', metadata={"last_heartbeat_at": "y", "z": 1})
    before = leaf.payload(device_sql.by_pk(world.view, 1))
    world.now += 1_000
    world.beat(device)
    after = leaf.payload(device_sql.by_pk(world.view, 1))
    assert before != after
    assert leaf.compared(before) == leaf.compared(after)
    world.update(device, metadata={"last_heartbeat_at": "z"})
    assert leaf.compared(leaf.payload(device_sql.by_pk(world.view, 1))) != leaf.compared(after)


def test_a_change_of_tags_is_mirrored(world: World, device: str) -> None:
    """The state has them, sorted; a change that changes nothing publishes nothing."""
    world.update(device, add_tags=["ward-3", "pilot"])
    assert marked(world)
    assert b'"tags":["pilot","ward-3"]' in StateTopic(Topics()).payload(device_sql.by_pk(world.view, 1))
    world.update(device, add_tags=["pilot"])
    assert not marked(world)
