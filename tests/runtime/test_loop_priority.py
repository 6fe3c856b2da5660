"""Work in bulk lets the event loop go first, and is not held up by it for ever."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain import heartbeats, message_batches, messages
from gateway.domain.messages import Message
from gateway.models.heartbeats import Heartbeat
from gateway.runtime.loop_priority import Loop, LoopPriority
from gateway.store import Batch, Tx, health_sql
from gateway.store.device_cache import CachedDevice
from gateway.store.heartbeat_sql import Beat
from tests.domain.support import World

PART = 20
"""Messages that the batches here store by the same statements, on either engine."""
TRIES = 1_000
GIVEN_UP_SECONDS = 20


def test_the_loop_reports_when_it_is_busy() -> None:
    """It is while a callback runs, and no longer when it waits for something, though it has worked before."""
    loop_priority = LoopPriority()

    async def work() -> tuple[bool, ...]:
        waited = [await asyncio.to_thread(_sees_it_rest, loop_priority) for _ in range(2)]
        return (loop_priority.busy, *waited)

    with asyncio.Runner(loop_factory=loop_priority.new_loop) as runner:
        assert runner.run(work()) == (True, True, True)


def _sees_it_rest(loop_priority: LoopPriority) -> bool:
    """Give way until the loop has nothing to do; it hands this thread over first, so it may be busy still."""
    for _ in range(TRIES):
        if not loop_priority.busy:
            return True
        loop_priority.yield_to_loop()
    return False


def test_yielding_work_continues_when_the_loop_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only when the longest time is over."""
    monkeypatch.setattr("gateway.runtime.loop_priority.LONGEST_SECONDS", 100 * GIVEN_UP_SECONDS)
    loop_priority = LoopPriority()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        met, went_on = threading.Semaphore(0), asyncio.Semaphore(0)

        def bulk() -> None:
            for _ in range(20):
                while not loop_priority.busy:
                    time.sleep(0)
                met.release()
                loop_priority.yield_to_loop()
                loop.call_soon_threadsafe(went_on.release)

        await asyncio.to_thread(lambda: None)  # wakes it; later rounds are woken by `went_on`
        threading.Thread(target=bulk, daemon=True).start()
        for _ in range(20):
            assert met.acquire(timeout=GIVEN_UP_SECONDS)  # at work: this blocks the loop
            async with asyncio.timeout(GIVEN_UP_SECONDS):
                await went_on.acquire()  # at rest

    with asyncio.Runner(loop_factory=loop_priority.new_loop) as runner:
        runner.run(work())


def test_a_busy_loop_delays_bulk_work_by_a_bounded_time() -> None:
    """A thread that gives way goes on after a while, though the loop's callback still runs."""
    loop_priority = LoopPriority()

    async def work() -> bool:
        went_on = threading.Event()

        def bulk() -> None:
            loop_priority.yield_to_loop()
            went_on.set()

        threading.Thread(target=bulk).start()
        return went_on.wait(GIVEN_UP_SECONDS)  # this blocks the loop

    with asyncio.Runner(loop_factory=loop_priority.new_loop) as runner:
        assert runner.run(work())


def test_bulk_work_gets_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waited in vain runs as long before it waits again: a hundred more waits would take far longer."""
    monkeypatch.setattr("gateway.runtime.loop_priority.LONGEST_SECONDS", GIVEN_UP_SECONDS / 20)
    loop_priority = LoopPriority()

    async def work() -> bool:
        went_on = threading.Event()

        def bulk() -> None:
            for _ in range(100):
                loop_priority.yield_to_loop()
            went_on.set()

        await asyncio.to_thread(lambda: None)  # wakes it
        threading.Thread(target=bulk, daemon=True).start()
        return went_on.wait(GIVEN_UP_SECONDS)  # this blocks the loop

    with asyncio.Runner(loop_factory=loop_priority.new_loop) as runner:
        assert runner.run(work())


def test_with_another_loop_nothing_waits() -> None:
    """As on the command line, which works on the registry in a loop of asyncio's own."""
    assert not LoopPriority().busy


class SteppedLoop:
    """A loop that does not run unless a test runs it, and what comes on two of its sockets."""

    def __init__(self) -> None:
        self.loop_priority = LoopPriority()
        loop = self.loop_priority.new_loop()
        assert isinstance(loop, Loop)
        self.loop = loop
        self.bulk, self.far_bulk = socket.socketpair()
        self.call, self.far_call = socket.socketpair()
        self.seen: list[str] = []
        self.loop.add_reader(self.bulk, self._read, self.bulk, "bulk")
        self.loop.add_reader(self.call, self._read, self.call, "call")

    def _read(self, end: socket.socket, name: str) -> None:
        end.recv(1)
        self.seen.append(name)
        self.loop.call_soon(self.seen.append, f"after {name}")

    def busy(self) -> bool:
        """Whether other threads give way to the loop."""
        return self.loop_priority.busy

    def run_until_seen(self, count: int) -> None:
        """Run the loop, which has something to do in each turn, until so much was read."""

        def turn() -> None:
            if len(self.seen) < count:
                self.loop.call_soon(turn)
            else:
                self.loop.stop()

        self.loop.call_soon(turn)
        self.loop.run_forever()

    def close(self) -> None:
        """Close all of it."""
        self.loop.close()
        for end in (self.bulk, self.far_bulk, self.call, self.far_call):
            end.close()


@pytest.fixture(name="site")
def site_fixture() -> Iterator[SteppedLoop]:
    """Both sockets are watched, and nothing has come yet."""
    site = SteppedLoop()
    yield site
    site.close()


def test_unread_data_makes_the_loop_busy(site: SteppedLoop) -> None:
    """A caller waits for that already; no caller waits for bulk work."""
    assert not site.busy()
    site.far_bulk.send(b"x")
    assert site.busy()
    site.loop.deprioritise(site.bulk.fileno())
    assert not site.busy()
    site.far_call.send(b"x")
    assert site.busy()


def test_a_deprioritised_socket_stays_so_while_it_is_unread(site: SteppedLoop) -> None:
    """The connection to the broker stops reading now and then."""
    site.loop.deprioritise(site.bulk.fileno())
    site.loop.remove_reader(site.bulk)
    site.loop.add_reader(site.bulk, lambda: None)
    site.far_bulk.send(b"x")
    assert not site.busy()


def test_a_removed_socket_has_normal_priority(site: SteppedLoop) -> None:
    """The next socket may get the number of one that was closed."""
    site.loop.deprioritise(site.bulk.fileno())
    site.loop.remove_reader(site.bulk)
    site.loop.forget(site.bulk.fileno())
    site.loop.add_reader(site.bulk, lambda: None)
    site.far_bulk.send(b"x")
    assert site.busy()


def test_a_socket_that_waits_to_be_written_makes_the_loop_busy(site: SteppedLoop) -> None:
    """An answer that did not fit goes on when there is room again; one that did is no work any more."""
    site.loop.add_writer(site.call, lambda: None)
    assert site.busy()
    site.loop.remove_writer(site.call)
    assert not site.busy()


def test_urgent_sockets_are_read_before_bulk_ones(site: SteppedLoop) -> None:
    """Whichever was there first, and also what that leads to in the next turn of the loop."""
    site.loop.deprioritise(site.bulk.fileno())
    site.far_bulk.send(b"x")
    site.far_call.send(b"x")

    site.run_until_seen(3)
    assert site.seen[:3] == ["call", "after call", "bulk"]


def test_bulk_sockets_are_read_in_a_busy_loop_too(site: SteppedLoop) -> None:
    """It comes in the end though the loop has something to do in each turn."""
    site.loop.deprioritise(site.bulk.fileno())
    site.far_bulk.send(b"x")

    site.run_until_seen(1)
    assert site.seen[0] == "bulk"


def test_a_batch_yields_before_each_part(tmp_path: Path) -> None:
    """So a request waits for one part of it, and for none of one that begins while it is worked on."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        topic = world.names.heartbeat(device_id)
        batch = [messages.parse(world.names, Message(topic, b"{}"))] * (2 * PART + 1)
        stored: list[int] = []

        def write(tx: Tx) -> None:
            yielded = Batch(tx, yield_to_urgent=lambda: stored.append(tx.value("SELECT count(*) FROM heartbeats")))
            tx.dialect = replace(tx.dialect, together=PART)
            message_batches.process_batch(yielded, batch, world.names)

        world.run(write)
        assert stored == [0, PART, 2 * PART]


def test_a_single_heartbeat_does_not_yield(tmp_path: Path) -> None:
    """A caller waits for a heartbeat over HTTP, and it shares its transaction with others."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        breaths: list[None] = []

        def write(tx: Tx) -> None:
            device = health_sql.device_state(tx, device_id)
            assert device is not None
            beats = heartbeats.HeartbeatBatch(tx, at_broker=False, yield_to_urgent=lambda: breaths.append(None))
            beats.take([Beat(CachedDevice(device), Heartbeat(), None)])
            beats.settle()

        world.run(write)
        assert breaths == []


def test_the_newest_states_of_many_are_written_in_parts(tmp_path: Path) -> None:
    """It breathes between two of them."""
    with World(tmp_path) as world:
        topics = [world.names.heartbeat(world.bound(f"SN-{number}")[0]) for number in range(PART + 1)]
        batch = [messages.parse(world.names, Message(topic, b"{}")) for topic in topics]
        written: list[int] = []

        def write(tx: Tx) -> None:
            count = "SELECT count(*) FROM health WHERE history_id IS NOT NULL"
            yielded = Batch(tx, yield_to_urgent=lambda: written.append(tx.value(count)))
            tx.dialect = replace(tx.dialect, together=PART)
            message_batches.process_batch(yielded, batch, world.names)

        world.run(write)
        assert written == [0, 0, PART]
