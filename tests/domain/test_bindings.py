"""Bindings: each bind, and each way in which one ends, is recorded with its events and its heartbeats."""

from pathlib import Path

from gateway.core.clock import DAY_MS
from gateway.domain import devices, heartbeats
from gateway.store import binding_history_sql, binding_sql
from gateway.store.binding_sql import BindingRecord
from tests.domain.support import NOON, World

PERSONS = ("eu_1", "eu_2", "eu_3")


def _of(world: World, end_user_id: str) -> list[BindingRecord]:
    return binding_sql.of_person(world.view, world.project_id, end_user_id)


def _event(world: World, seq: int) -> str:
    return str(world.view.value("SELECT type FROM events WHERE seq = ?", seq))


def test_each_end_of_a_binding_is_recorded(tmp_path: Path) -> None:
    """An unbind, a reset and a deletion end it; restoring the device begins none."""
    with World(tmp_path) as world:
        device_id = world.register()
        for number, end in enumerate((world.unbind, world.reset, world.delete), 1):
            if number == 3:
                world.supersede(device_id)
                world.settle()
            world.bind(device_id, f"eu_{number}")
            world.now += 1_000
            end(device_id)
            (binding,) = _of(world, f"eu_{number}")
            assert (binding.device_id, binding.bound_at, binding.unbound_at) == (
                device_id,
                world.now - 1_000,
                world.now,
            )
            assert binding.last_event is not None
            assert _event(world, binding.first_event) == "device.bound"
            assert _event(world, binding.last_event) == "device.unbound"
            world.now += 1_000
        world.restore(device_id)
        assert [binding.unbound_at is None for number in "123" for binding in _of(world, f"eu_{number}")] == [False] * 3


def test_an_open_binding_has_no_end(tmp_path: Path) -> None:
    """While the device is bound; its generation is that of its token. Another project's person is another person."""
    with World(tmp_path) as world:
        device_id, token = world.bound()
        (binding,) = _of(world, "eu_1")
        assert (binding.unbound_at, binding.last_event, binding.last_heartbeat) == (None, None, None)
        assert binding.generation == world.token(token).generation == world.device(device_id).binding_generation
        assert binding_sql.of_person(world.view, "proj_other", "eu_1") == []


def test_heartbeats_of_a_binding_lie_between_its_marks(tmp_path: Path) -> None:
    """Whatever the clock says: it is set back while the second person has the device."""
    with World(tmp_path) as world:
        device_id = world.register()
        for person, at in (("eu_1", NOON), ("eu_2", NOON - DAY_MS)):
            world.now = at
            world.bind(device_id, person)
            for _ in range(2):
                world.now += 1_000
                world.beat(device_id, battery_percent=50)
            world.unbind(device_id)
            world.beat(device_id, battery_percent=50)  # of no one: not stored
        first, second = _of(world, "eu_1") + _of(world, "eu_2")
        assert (first.after_heartbeat, first.last_heartbeat) == (0, 2)
        assert (second.after_heartbeat, second.last_heartbeat) == (2, 4)


def test_a_binding_is_deleted_when_nothing_of_it_can_be_left(tmp_path: Path) -> None:
    """Heartbeats and events of it are too old by then. One that has not ended stays."""
    with World(tmp_path) as world:
        device_id = world.register()
        world.bind(device_id, "eu_1")
        world.unbind(device_id)
        world.bind(device_id, "eu_2")
        rules = world.context.rules
        world.now += max(rules.heartbeat_history_days, rules.event_history_days) * DAY_MS
        world.run(heartbeats.prune)
        assert len(_of(world, "eu_1")) == 1
        world.now += 1
        while world.run(heartbeats.prune):
            pass
        assert (_of(world, "eu_1"), len(_of(world, "eu_2"))) == ([], 1)


def test_numbers_of_pruned_heartbeats_are_not_used_again(tmp_path: Path) -> None:
    """Not even when the whole history was pruned: a mark of an old binding would name another person's heartbeat."""
    with World(tmp_path) as world:
        device_id = world.register()
        for person in ("eu_1", "eu_2"):
            world.bind(device_id, person)
            world.beat(device_id, battery_percent=50)
            world.unbind(device_id)
            world.now += world.context.rules.heartbeat_history_days * DAY_MS + 1
            world.run(heartbeats.prune)
            assert world.view.value("SELECT count(*) FROM heartbeats") == 0
        world.bind(device_id, "eu_3")
        for _ in range(3):
            world.now += 1_000
            world.beat(device_id, battery_percent=50)
        found = [binding_history_sql.page(world.view, *_of(world, person), after=None, limit=9) for person in PERSONS]
        assert [len(rows) for rows in found] == [0, 0, 3]


def test_a_registry_that_begins_a_new_epoch_keeps_its_bindings(tmp_path: Path) -> None:
    """The generation of every device is raised; an open binding still ends with its device's."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        world.run(lambda tx: tx.run("UPDATE devices SET binding_generation = 2000000"))
        world.run(devices.unbind, world.project_id, device_id, "key_1")
        (binding,) = _of(world, "eu_1")
        assert binding.unbound_at == world.now
        world.bind(device_id, "eu_1")
        assert [each.generation for each in _of(world, "eu_1")] == [1, 2_000_002]
