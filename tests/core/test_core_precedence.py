"""Work in bulk lets the event loop go first, and is not held up by it for ever."""

import asyncio
import threading
from pathlib import Path

from core_support import World

from gateway import heartbeats, inbound, model
from gateway.inbound import PART, Message
from gateway.precedence import Precedence
from gateway.store import Tx, health


def test_the_loop_says_when_it_is_busy() -> None:
    """It is while a callback runs, and no longer when it waits for something."""
    precedence = Precedence()

    async def work() -> tuple[bool, bool]:
        waited = await asyncio.to_thread(_waits, precedence)
        return precedence.busy, waited

    with asyncio.Runner(loop_factory=precedence.new_loop) as runner:
        assert runner.run(work()) == (True, True)


def _waits(precedence: Precedence) -> bool:
    """Give way until the loop has nothing to do; it hands this thread over first, so it may be busy still."""
    while precedence.busy:
        precedence.give_way()
    return True


def test_a_loop_that_is_busy_for_long_holds_nobody_up_for_ever() -> None:
    """Whoever gives way goes on after a while, though the loop's callback still runs."""
    precedence = Precedence()

    async def work() -> bool:
        went_on = threading.Event()

        def bulk() -> None:
            precedence.give_way()
            went_on.set()

        threading.Thread(target=bulk).start()
        return went_on.wait(20)  # this blocks the loop

    with asyncio.Runner(loop_factory=precedence.new_loop) as runner:
        assert runner.run(work())


def test_without_such_a_loop_nobody_waits() -> None:
    """As on the command line, which works on the registry in a loop of asyncio's own."""
    assert not Precedence().busy


def test_a_batch_breathes_after_each_part(tmp_path: Path) -> None:
    """So a request waits for one part of it."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        topic = world.names.heartbeat(device_id)
        batch = [inbound.parse(world.names, Message(topic, b"{}"))] * (2 * PART + 1)
        stored: list[int] = []

        def write(tx: Tx) -> None:
            tx.breathe = lambda: stored.append(tx.value("SELECT count(*) FROM heartbeats"))
            inbound.apply_all(tx, batch)

        world.run(write)
        assert stored == [PART, 2 * PART, 2 * PART + 1]


def test_a_single_heartbeat_does_not_breathe(tmp_path: Path) -> None:
    """One over HTTP is what somebody waits for, and it shares its transaction with others."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        breaths: list[None] = []

        def write(tx: Tx) -> None:
            tx.breathe = lambda: breaths.append(None)
            device = health.sender(tx, device_id)
            assert device is not None
            heartbeats.beat(tx, device, model.Heartbeat(), None)

        world.run(write)
        assert breaths == []


def test_the_newest_states_of_many_are_written_in_parts(tmp_path: Path) -> None:
    """It breathes between two of them."""
    with World(tmp_path) as world:
        topics = [world.names.heartbeat(world.bound(f"SN-{number}")[0]) for number in range(PART + 1)]
        batch = [inbound.parse(world.names, Message(topic, b"{}")) for topic in topics]
        written: list[int] = []

        def write(tx: Tx) -> None:
            tx.breathe = lambda: written.append(tx.value("SELECT count(*) FROM health WHERE history_id IS NOT NULL"))
            inbound.apply_all(tx, batch)

        world.run(write)
        assert written == [0, 0, heartbeats.PART]
