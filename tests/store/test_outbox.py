"""The outbox: what is due, what waits for its turn, and how a bulk reset keeps its pace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.bootstrap import rules_of
from gateway.domain import commands, devices
from gateway.settings.loading import Settings
from gateway.store import Rules, Tx, due_topic_sql, outbox_sql
from tests.domain.support import NOON, World
from tests.support.outbox import outbox_depth

STEP = 20
"""Milliseconds between two turns at 50 a second."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project, 50 turns a second."""
    with World(tmp_path) as opened:
        yield opened


def reset_paced(world: World, device_id: str) -> None:
    """Reset a device as a bulk reset does."""

    def reset(tx: Tx) -> None:
        devices.reset(tx, world.project_id, device_id, "key_1", not_before=outbox_sql.next_turn(tx))

    world.run(reset)


def some(world: World, count: int) -> list[str]:
    """Devices that wait for their turn, in order."""
    found = [world.bound(f"SN-{number}")[0] for number in range(count)]
    for device_id in found:
        reset_paced(world, device_id)
    return found


def turns(world: World) -> list[int]:
    """When each command is due, from now, in milliseconds."""
    rows = world.view.all("SELECT not_before FROM outbox WHERE kind = 'command' ORDER BY seq")
    return [row["not_before"] - world.now for row in rows]


def due(world: World) -> list[str]:
    """The devices whose commands are due now, in the order in which they go out."""
    found = due_topic_sql.due(world.view, world.now, 100)
    return [topic.row.device_id for topic in found if topic.row.kind == outbox_sql.COMMAND]


def test_a_bulk_reset_is_due_at_a_pace(world: World) -> None:
    """One every 20 ms; the next turn is known; what is not due is not published."""
    devices = some(world, 3)
    assert turns(world) == [STEP, 2 * STEP, 3 * STEP]
    assert (due(world), outbox_sql.next_due(world.view)) == ([], NOON + STEP)
    world.now += 2 * STEP
    assert due(world) == devices[:2]


def test_two_bulk_resets_at_once_share_the_pace(world: World) -> None:
    """The second queues behind what waits of the first, also after some of that is out."""
    later, latest = world.bound("SN-8")[0], world.bound("SN-9")[0]
    some(world, 2)
    world.now += STEP
    world.run(outbox_sql.done, [topic.row.seq for topic in due_topic_sql.due(world.view, world.now, 100)])
    reset_paced(world, later)
    assert turns(world) == [STEP, 2 * STEP]
    world.now += 2 * STEP
    world.run(outbox_sql.done, [topic.row.seq for topic in due_topic_sql.due(world.view, world.now, 100)])
    reset_paced(world, latest)
    assert turns(world) == [STEP]


@pytest.mark.parametrize(("per_second", "step"), [(1, 1000), (3, 334), (50, 20), (1000, 1)])
def test_the_pace_is_never_faster_than_set(tmp_path: Path, per_second: int, step: int) -> None:
    """Rounded up to whole milliseconds."""
    with World(tmp_path, rules=Rules(bulk_reset_per_second=per_second)) as world:
        some(world, 2)
        assert turns(world) == [step, 2 * step]


def test_the_pace_is_that_of_the_settings(tmp_path: Path) -> None:
    """``bulk_reset_per_second`` is among the rules that every write goes by."""
    assert rules_of(Settings(data_dir=tmp_path, bulk_reset_per_second=7), "gw_1").bulk_reset_per_second == 7


def test_missed_turns_are_not_made_up_at_once(world: World) -> None:
    """After an hour without a broker the first goes out now, the others follow at the old distance."""
    devices = some(world, 3)
    world.now += 3_600_000
    assert outbox_sql.paced(world.view)
    world.run(outbox_sql.resume_pace)
    assert due(world) == devices[:1]
    assert turns(world) == [0, STEP, 2 * STEP]


def test_a_clock_that_was_set_back_does_not_delay_the_fleet(world: World) -> None:
    """With the next connection the pace begins again."""
    devices = some(world, 2)
    world.now -= 86_400_000
    assert due(world) == []
    world.run(outbox_sql.resume_pace)
    assert turns(world) == [STEP, 2 * STEP]
    world.now += STEP
    assert due(world) == devices[:1]


def test_a_flapping_link_does_not_raise_the_pace(world: World) -> None:
    """A row that has not missed its turn keeps it, however often the connection is made again."""
    some(world, 2)
    world.now += STEP // 2
    for _ in range(3):
        world.run(outbox_sql.resume_pace)
    assert turns(world) == [STEP // 2, STEP // 2 + STEP]


def test_unpaced_rows_are_due_at_once(world: World) -> None:
    """Rows that are due at once stay so; with none that waits there is nothing to resume."""
    device_id, _ = world.bound()
    world.create(device_id, "reboot")
    before = world.dump()
    assert not outbox_sql.paced(world.view)
    world.run(outbox_sql.resume_pace)
    assert world.dump() == before
    assert outbox_sql.next_due(world.view) == 0


def test_urgent_rows_go_first(world: World) -> None:
    """A reset of one device, and a cancelled one of the bulk, do not wait for a turn."""
    alone, _ = world.bound("SN-8")
    first, second = some(world, 2)
    world.run(devices.reset, world.project_id, alone, "key_1")
    assert due(world) == [alone]
    world.run(lambda tx: commands.cancel(tx, world.device(second), world.command(second).id, "key_1"))
    assert due(world) == [alone, second]
    assert world.outbox().count(("command", "factory_reset")) == 3
    world.now += STEP
    assert due(world) == [alone, second, first]


def test_a_due_row_is_not_postponed(world: World) -> None:
    """A topic that is out of step already goes out at once, although a paced reset marks it again."""
    device_id, _ = world.bound()
    world.reset(device_id)
    world.supersede(device_id)
    reset_paced(world, device_id)
    assert due(world) == [device_id]


def test_other_retained_topics_are_due_too(world: World) -> None:
    """The status of a deleted device, after the commands; credentials are for another worker."""
    device_id, _ = world.bound()
    world.create(device_id, "reboot")
    world.delete(device_id)
    rows = [topic.row for topic in due_topic_sql.due(world.view, world.now, 100)]
    assert [(row.kind, row.detail, row.deleted_at) for row in rows] == [
        ("command", "reboot", world.now),
        ("topic", "status", world.now),
    ]
    assert [topic.row.kind for topic in due_topic_sql.due(world.view, world.now, 1)] == ["command"]
    world.run(outbox_sql.done, [rows[0].seq])
    assert outbox_sql.next_due(world.view) == 0
    world.run(outbox_sql.done, [rows[1].seq])
    assert outbox_sql.next_due(world.view) is None


def test_the_age_of_the_oldest_ignores_paced_rows(world: World) -> None:
    """It counts from its turn on, so that ``/ready`` does not show a delay that is meant."""
    some(world, 1)
    assert outbox_depth(world.view) == (1, NOON + STEP)
