"""A bulk reset reaches the broker at its pace: over restarts, lost links and comparisons (contract, section 2)."""

from pathlib import Path

from gateway.core.clock import system_clock
from gateway.domain import devices as lifecycle
from gateway.store import Tx, command_sql, outbox_sql
from tests.mqtt.support import RESET, Device, MovedClock, Site, on_every_broker, site
from tests.support.wait import eventually

STEP_MS = 1_000_000
SLOW = {"bulk_reset_per_second": 1_000 / STEP_MS}
"""A step takes longer than any test, so that turns come by the clock that the test moves, and by nothing else."""


async def reset_all(place: Site, *devices: Device) -> None:
    """Reset these as a bulk reset does, each in a separate transaction."""
    for device in devices:

        def reset(tx: Tx, device: Device = device) -> None:
            lifecycle.reset(tx, place.project_id, device.id, "key_test", not_before=outbox_sql.next_turn(tx))

        await place.store.write(reset)


async def holds(place: Site, *devices: Device) -> None:
    """Wait until the broker holds the resets of exactly these."""
    topics = {device.topic(f"commands/{RESET}") for device in devices}

    async def does() -> bool:
        return set(await place.retained()) == topics

    await eventually(does, f"the broker held {len(topics)} resets")


def later(place: Site, milliseconds: int) -> None:
    """Time passes."""
    clock = place.store.context.clock
    assert isinstance(clock, MovedClock)
    clock.ahead_ms += milliseconds


async def compared(place: Site) -> None:
    """Wait until the gateway is connected and has compared itself with the broker."""
    await eventually(lambda: place.connection.status.reconciled, "the gateway has compared")


@on_every_broker
async def test_each_goes_out_in_its_turn(kind: str, tmp_path: Path) -> None:
    """One after the other as time goes on; a reset of one device, and a cancelled one, do not wait for their turn."""
    async with site(kind, tmp_path, rules=SLOW) as place:
        await place.start()
        first, second, third, alone = [await place.bound(f"SN-{number}") for number in range(4)]
        await place.settled()
        await reset_all(place, first, second, third)
        await place.reset(alone)
        await holds(place, alone)
        later(place, STEP_MS)
        await holds(place, alone, first)
        later(place, STEP_MS)
        await holds(place, alone, first, second)
        (waiting,) = await place.store.read(lambda view: command_sql.open_of_device(view, third.pk))
        await place.cancel(third, waiting)
        await place.settled()
        await holds(place, alone, first, second)


@on_every_broker
async def test_the_pace_survives_restarts_and_lost_links(kind: str, tmp_path: Path) -> None:
    """Neither the comparison after a connect nor a new process publishes what waits for its turn."""
    async with site(kind, tmp_path, rules=SLOW) as place:
        await place.start()
        devices = [await place.bound(f"SN-{number}") for number in range(3)]
        await place.settled()
        await reset_all(place, *devices)
        place.proxy.cut()
        await eventually(lambda: place.proxy.connects == 2, "the gateway came back")
        await compared(place)
        assert await place.retained() == {}
        later(place, STEP_MS)
        await holds(place, devices[0])
        await place.stop()
        await place.start(settled=False)
        await compared(place)
        await holds(place, devices[0])
        later(place, STEP_MS)
        await holds(place, *devices[:2])


@on_every_broker
async def test_turns_missed_without_a_broker_are_not_made_up_at_once(kind: str, tmp_path: Path) -> None:
    """Back after all turns are over, the gateway publishes one, and then the next in its time."""
    async with site(kind, tmp_path, rules=SLOW) as place:
        await place.start()
        devices = [await place.bound(f"SN-{number}") for number in range(3)]
        await place.settled()
        await place.stop()
        await reset_all(place, *devices)
        later(place, 10 * STEP_MS)
        await place.start(settled=False)
        await compared(place)
        await holds(place, devices[0])
        later(place, STEP_MS)
        await holds(place, *devices[:2])


@on_every_broker
async def test_a_clock_that_is_set_back_holds_up_nobody(kind: str, tmp_path: Path) -> None:
    """The first waits for a step at most, not for as long as the clock went back; the others follow."""
    async with site(kind, tmp_path, rules=SLOW) as place:
        await place.start()
        devices = [await place.bound(f"SN-{number}") for number in range(2)]
        await place.settled()
        await reset_all(place, *devices)
        later(place, -100 * STEP_MS)

        async def moved() -> bool:
            rows = await place.rows("SELECT min(not_before) AS first FROM outbox WHERE not_before > 0")
            return bool(rows[0]["first"] <= place.store.context.clock() + STEP_MS)

        await eventually(moved, "the turns were moved to the new time")
        later(place, STEP_MS)
        await holds(place, devices[0])
        later(place, STEP_MS)
        await holds(place, *devices)


@on_every_broker
async def test_no_command_comes_before_its_turn(kind: str, tmp_path: Path) -> None:
    """By the real clock, at the pace of the default setting, in the order in which they were asked for."""
    async with site(kind, tmp_path) as place:
        await place.start()
        devices = [await place.bound(f"SN-{number}") for number in range(12)]
        await place.settled()
        async with place.admin() as witness:
            await witness.subscribe(f"devices/+/commands/{RESET}")
            await reset_all(place, *devices)
            rows = await place.rows("SELECT not_before FROM outbox WHERE not_before > 0 ORDER BY not_before")
            came = [(system_clock(), (await witness.read_publish()).topic) for _ in devices]
        assert [topic for _, topic in came] == [device.topic(f"commands/{RESET}") for device in devices]
        waiting = [row[0] for row in rows]
        # Those that had gone out before the look into the outbox are not among them.
        assert len(waiting) >= 2
        arrived = [system for system, _ in came][-len(waiting) :]
        # The clock was read before each arrival, so it may be as old as the arrival before.
        assert all(after >= turn for turn, after in zip(waiting, [*arrived[1:], system_clock()], strict=True))
