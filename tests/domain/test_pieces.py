"""Changes that touch a whole fleet are made a piece at a time: how many rows one transaction writes."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from gateway.domain import commands, heartbeats
from gateway.domain.heartbeats import latest_due
from gateway.store import Context, Rules, Store, View, account_sql, health_sql, outbox_sql, project_mark_sql
from gateway.workers.expiry import ExpiryWorker
from tests.domain.brokers import SECOND, own
from tests.domain.support import World

COPIES = "SELECT device_pk, broker_pk FROM outbox WHERE detail = 'project_state'"
NAME = "integrator_ward"
HOUR_MS = 3_600_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with seven devices, whose states are mirrored. A piece has three."""
    with (
        World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as opened,
        patch.object(project_mark_sql, "AT_ONCE", 3),
    ):
        for number in range(7):
            opened.bound(f"SN-{number}")
        yield opened


def copies(view: View) -> int:
    """How many states of projects are out of step."""
    return len(view.all(COPIES))


def serials(world: World) -> list[str]:
    """The devices whose state of the project is out of step."""
    rows = world.view.all(f"SELECT serial_number FROM ({COPIES}) AS o JOIN devices d ON d.pk = o.device_pk")  # noqa: S608
    return sorted(row[0] for row in rows)


@pytest.mark.parametrize("is_last", [False, True])
def test_devices_of_a_project_are_marked_in_pieces(world: World, *, is_last: bool) -> None:
    """Of its first integrator and after its last. Until the end the project is known to be under way."""
    if is_last:
        world.run(account_sql.create, NAME, world.project_id)
        while project_mark_sql.is_under_way(world.view):
            world.run(project_mark_sql.go_on)
        world.settle()
        world.run(account_sql.revoke, NAME)
    else:
        world.run(account_sql.create, NAME, world.project_id)
    assert copies(world.view) == 3
    assert project_mark_sql.is_under_way(world.view)
    assert [world.run(project_mark_sql.go_on) for _ in range(3)] == [3, 1, 0]
    assert not project_mark_sql.is_under_way(world.view)
    assert serials(world) == [f"SN-{number}" for number in range(7)]


def test_a_piece_that_ends_with_the_last_device_is_followed_by_an_empty_one(world: World) -> None:
    """No device follows, which the next piece finds."""
    with patch.object(project_mark_sql, "AT_ONCE", 7):
        world.run(account_sql.create, NAME, world.project_id)
        assert copies(world.view) == 7
        assert world.run(project_mark_sql.go_on) == 0
    assert not project_mark_sql.is_under_way(world.view)


def test_a_device_that_is_deleted_before_its_turn_is_marked(world: World) -> None:
    """The project has no integrator any more, but its state may still be retained at a broker."""
    last = world.view.value("SELECT id FROM devices WHERE serial_number = 'SN-6'")
    world.run(account_sql.create, NAME, world.project_id)
    while project_mark_sql.is_under_way(world.view):
        world.run(project_mark_sql.go_on)
    world.settle()
    world.run(account_sql.revoke, NAME)
    world.delete(last)
    while project_mark_sql.is_under_way(world.view):
        world.run(project_mark_sql.go_on)
    assert serials(world) == [f"SN-{number}" for number in range(7)]
    world.settle()
    world.restore(last)
    assert copies(world.view) == 0, "nobody reads the project any more"


def test_an_account_that_comes_back_begins_again(world: World) -> None:
    """What was published meanwhile is cleared, or the other way round."""
    world.run(account_sql.create, NAME, world.project_id)
    world.run(account_sql.revoke, NAME)
    world.run(project_mark_sql.go_on)
    world.settle()
    world.run(account_sql.create, NAME, world.project_id)
    while project_mark_sql.is_under_way(world.view):
        world.run(project_mark_sql.go_on)
    assert len(serials(world)) == 7


def test_each_broker_is_marked(world: World) -> None:
    """A piece counts devices, and each has a row for each broker."""
    own(world, "default")
    own(world, "brk_b")
    world.run(account_sql.create, NAME, world.project_id)
    assert {(row["broker_pk"]) for row in world.view.all(COPIES)} == {1, SECOND}
    assert copies(world.view) == 3 * 2


def test_commands_expire_in_pieces(world: World) -> None:
    """Each transaction closes so many; what is left is due still."""
    ids = [row["id"] for row in world.view.all("SELECT id FROM devices ORDER BY pk")]
    for device_id in ids:
        world.create(device_id, "reboot", ttl_seconds=60)
    world.now += HOUR_MS
    with patch.object(commands, "EXPIRED_AT_ONCE", 3):
        assert [world.run(commands.expire) for _ in range(4)] == [3, 3, 1, 0]
    assert world.events().count("command.expired") == len(ids)


def test_commands_of_a_clock_that_was_ahead_are_changed_in_pieces(world: World) -> None:
    """Each transaction signs so many again."""
    ids = [row["id"] for row in world.view.all("SELECT id FROM devices ORDER BY pk")]
    world.now += HOUR_MS
    for device_id in ids:
        world.create(device_id, "reboot", ttl_seconds=60)
    world.now -= HOUR_MS
    world.settle()
    with patch.object(commands, "EXPIRED_AT_ONCE", 3):
        marked = []
        for _ in range(4):
            world.run(commands.expire)
            marked.append(len(world.outbox()))
            world.settle()
    assert marked == [3, 3, 1, 0]


def test_deadlines_are_shortened_in_pieces(world: World) -> None:
    """After the clock was set back, or with a shorter silence: each transaction changes so many, and none is missed."""
    for row in world.view.all("SELECT id FROM devices ORDER BY pk"):
        world.now += HOUR_MS
        world.beat(row["id"])
    world.now -= 8 * HOUR_MS
    latest, until = latest_due(world.context.rules, world.now), world.now + world.context.rules.silence_ms
    assert [world.run(health_sql.wait_no_longer, latest, until, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert world.view.all("SELECT DISTINCT offline_due_at FROM health")[0][0] == until
    world.now = until
    assert world.run(heartbeats.sweep_presence) == 7


async def test_the_worker_does_all_pieces(tmp_path: Path) -> None:
    """One look is enough, however many pieces there are."""
    with (
        World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as world,
        patch.object(project_mark_sql, "AT_ONCE", 2),
    ):
        for number in range(7):
            world.register(f"SN-{number}")
        world.run(account_sql.create, NAME, world.project_id)
        async with Store(tmp_path, Context(rules=Rules(mirrored=(outbox_sql.STATE,)))) as store:
            await ExpiryWorker(store).mark_projects()
            assert await store.read(copies) == 7
            assert not await store.read(project_mark_sql.is_under_way)
