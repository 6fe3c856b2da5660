"""Whether a device is there: birth, will, silence and heartbeats come to one word, told once."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from gateway.domain import heartbeats
from gateway.errors import StoreError
from gateway.store import Context, Rules, Store, View, health_sql
from gateway.store.broker_sql import FIRST
from gateway.store.device_cache import SenderRecord
from gateway.store.lease_sql import LeaseLostError
from gateway.workers import presence
from gateway.workers.presence import PresenceWorker
from tests.domain.brokers import marked
from tests.domain.support import World

SILENCE, GRACE = 180_000, 10_000
ONLINE, OFFLINE = {"status": "online"}, {"status": "offline"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def _told(world: World) -> list[str]:
    return [kind for kind in world.events() if kind in {"device.online", "device.offline"}]


def _later(world: World, milliseconds: int) -> int:
    world.now += milliseconds
    return world.run(heartbeats.sweep_presence)


def test_three_silent_intervals_end_in_offline_once(world: World) -> None:
    """Not a millisecond earlier; and then it is quiet."""
    device_id, _ = world.bound()
    world.beat(device_id)
    assert _later(world, SILENCE - 1) == 0
    assert _later(world, 1) == 1
    assert world.device(device_id).connection == "offline"
    assert _later(world, 10 * SILENCE) == 0
    assert _told(world) == ["device.online", "device.offline"]


def test_heartbeats_keep_a_device_online(world: World) -> None:
    """One event for a thousand of them."""
    device_id, _ = world.bound()
    for _ in range(1_000):
        world.beat(device_id)
        assert _later(world, 60_000) == 0
    assert _told(world) == ["device.online"]


def test_a_will_or_an_offline_status_ends_in_offline_soon(world: World) -> None:
    """They are the same word; it is believed after the grace time, and told once however often it is said."""
    device_id, _ = world.bound()
    world.beat(device_id)
    world.say(world.names.status(device_id), OFFLINE)
    assert world.device(device_id).connection == "online"
    world.now += GRACE // 2
    world.say(world.names.status(device_id), OFFLINE, retain=True)
    assert _later(world, GRACE // 2) == 1
    world.say(world.names.status(device_id), OFFLINE)
    assert _later(world, SILENCE) == 0
    assert _told(world) == ["device.online", "device.offline"]


def test_an_online_status_marks_a_device_online(world: World) -> None:
    """Online before its first heartbeat, with no time of a heartbeat; and not for longer than the silence."""
    device_id, _ = world.bound()
    world.say(world.names.status(device_id), ONLINE)
    device = world.device(device_id)
    assert (device.connection, device.last_heartbeat_at) == ("online", None)
    assert _later(world, SILENCE) == 1


def test_a_flapping_link_causes_few_events(world: World) -> None:
    """Will and birth, a hundred times, each within the grace time: one event."""
    device_id, _ = world.bound()
    world.beat(device_id)
    for _ in range(100):
        world.say(world.names.status(device_id), OFFLINE)
        assert _later(world, GRACE - 1) == 0
        world.say(world.names.status(device_id), ONLINE)
        assert _later(world, GRACE) == 0
    assert _told(world) == ["device.online"]


def test_a_retained_online_status_is_ignored(world: World) -> None:
    """It may be older than the silence that followed it: the next heartbeat tells."""
    device_id, _ = world.bound()
    before = world.dump()
    world.say(world.names.status(device_id), ONLINE, retain=True)
    assert world.dump() == before


@pytest.mark.parametrize("body", [ONLINE, OFFLINE])
def test_a_device_without_a_token_is_not_marked_online(world: World, body: dict[str, str]) -> None:
    """Unbound, its token revoked: the session is being cut, and its last words show nothing."""
    device_id, _ = world.bound()
    world.unbind(device_id)
    world.settle()
    before = world.dump("sqlite_sequence")
    world.say(world.names.status(device_id), body)
    assert marked(world, FIRST) == ({("topic", "status")} if body == ONLINE else set())
    world.settle()
    assert world.dump("sqlite_sequence") == before


def test_a_device_with_an_open_reset_has_presence(world: World) -> None:
    """``reset_only`` shows presence, by birth too."""
    device_id, _ = world.bound()
    world.reset(device_id)
    world.say(world.names.status(device_id), ONLINE)
    assert world.device(device_id).connection == "online"


def test_after_a_clock_step_back_the_next_message_updates_presence(world: World) -> None:
    """A deadline that lies too far ahead is replaced, not kept."""
    device_id, _ = world.bound()
    world.beat(device_id)
    world.now -= 3_600_000
    world.beat(device_id)
    assert _later(world, SILENCE) == 1


def test_a_sweep_processes_a_few_hundred_rows_at_a_time(world: World) -> None:
    """A fleet that goes dark at once does not hold up the writer; the next sweeps take the rest."""
    for number in range(501):
        device_id, _ = world.bound(f"SN-{number}")
        world.say(world.names.status(device_id), ONLINE)
    assert (_later(world, SILENCE), _later(world, 0), _later(world, 0)) == (500, 1, 0)
    assert _told(world).count("device.offline") == 501


async def test_it_is_judged_until_the_lease_is_lost(tmp_path: Path) -> None:
    """An error of the store ends nothing; when another gateway does this work, the worker ends."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        world.beat(device_id)
        now = world.now
    last = now + 2 * SILENCE
    errors = iter((StoreError("the disk is full"), LeaseLostError("another gateway works")))

    def listens() -> bool:
        nonlocal now
        now += presence.STANDSTILL_MS - 1  # less than a gap
        if now > last:
            pytest.fail("the worker has gone on")
        return True

    async def taken_in(_: float) -> bool:
        raise next(errors)

    async with Store(tmp_path, Context(Rules(), clock=lambda: now)) as store:
        with patch.object(presence, "INTERVAL_SECONDS", 0), pytest.raises(LeaseLostError):
            await PresenceWorker(store, taken_in, listens).run()


async def test_a_clock_jump_during_the_sweep_marks_no_device_offline(tmp_path: Path) -> None:
    """It may jump after the gap was looked at and before the devices are: the next round forgives it."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        world.beat(device_id)
        now = world.now
    jump = 0

    def clock() -> int:
        nonlocal now, jump
        seen, now, jump = now, now + jump, 0
        return seen

    context = Context(Rules(), clock=clock)

    async def taken_in(_: float) -> bool:
        return True

    async with Store(tmp_path, context) as store:
        worker = PresenceWorker(store, taken_in, lambda: True)
        await worker.look()
        jump = 60 * SILENCE  # after the next look at the clock
        await worker.look()
        assert await store.read(lambda view: view.value("SELECT connection FROM health")) == "online"
        await worker.look()
        assert await store.read(lambda view: view.value("SELECT connection FROM health")) == "online"
        now += SILENCE
        await worker.judge()
        assert await store.read(lambda view: view.value("SELECT connection FROM health")) == "offline"


async def test_an_outage_is_kept_once_and_moves_no_deadline(tmp_path: Path) -> None:
    """No row of a device is written for it; each has as much time left as it had, over a second outage, too."""
    outage, later = 20 * SILENCE, 100_000
    with World(tmp_path) as world:
        silent, leaving = world.bound("SN-1")[0], world.bound("SN-2")[0]
        world.beat(silent)
        world.now += later
        world.beat(leaving)
        now = world.now

    async def taken_in(_: float) -> bool:
        return True

    async with Store(tmp_path, Context(Rules(), clock=lambda: now)) as store:

        async def step(worker: PresenceWorker, milliseconds: int) -> list[str]:
            nonlocal now
            now += milliseconds
            await worker.judge(now)
            return await store.read(_online)

        before = await store.read(_deadlines)
        now += outage
        await PresenceWorker(store, taken_in, lambda: True).forgive()
        now += outage
        worker = PresenceWorker(store, taken_in, lambda: True)  # a new process
        await worker.forgive()
        assert await store.read(_deadlines) == before
        await store.write(lambda tx: heartbeats.device_offline(tx, _known(tx, leaving)))
        assert await step(worker, GRACE - 1) == [silent, leaving]
        assert await step(worker, 1) == [silent]
        assert await step(worker, SILENCE - later - GRACE - 1) == [silent]
        assert await step(worker, 1) == []


def _known(view: View, device_id: str) -> SenderRecord:
    found = health_sql.device_state(view, device_id)
    assert found is not None
    return found


def _deadlines(view: View) -> list[tuple[int, ...]]:
    return [tuple(row) for row in view.all("SELECT device_pk, offline_due_at FROM health ORDER BY device_pk")]


def _online(view: View) -> list[str]:
    rows = view.all(
        """SELECT d.id FROM health h JOIN devices d ON d.pk = h.device_pk
            WHERE h.connection = 'online' ORDER BY d.pk"""
    )
    return [row["id"] for row in rows]
