"""A bulk reset reaches the broker at its pace: over restarts, lost links and comparisons (contract, section 2)."""

from pathlib import Path

from gateway.core.clock import system_clock
from gateway.domain import devices as lifecycle
from gateway.store import Tx, command_sql, outbox_sql
from tests.mqtt.devices import Device
from tests.mqtt.support import RESET, MqttTestbed, on_every_broker, open_testbed
from tests.support.clock import ShiftedClock
from tests.support.wait import eventually

STEP_MS = 1_000_000
SLOW = {"bulk_reset_per_second": 1_000 / STEP_MS}
"""A step takes longer than any test, so that turns come by the clock that the test moves, and by nothing else."""


async def reset_all(testbed: MqttTestbed, *devices: Device) -> None:
    """Reset these as a bulk reset does, each in a separate transaction."""
    for device in devices:

        def reset(tx: Tx, device: Device = device) -> None:
            lifecycle.reset(tx, testbed.project_id, device.id, "key_test", not_before=outbox_sql.next_turn(tx))

        await testbed.store.write(reset)


async def holds(testbed: MqttTestbed, *devices: Device) -> None:
    """Wait until the broker holds the resets of exactly these."""
    topics = {device.topic(f"commands/{RESET}") for device in devices}

    async def does() -> bool:
        return set(await testbed.retained()) == topics

    await eventually(does, f"the broker held {len(topics)} resets")


def later(testbed: MqttTestbed, milliseconds: int) -> None:
    """Time passes."""
    clock = testbed.store.context.clock
    assert isinstance(clock, ShiftedClock)
    clock.ahead_ms += milliseconds


async def compared(testbed: MqttTestbed) -> None:
    """Wait until the gateway is connected and has compared itself with the broker."""
    await eventually(lambda: testbed.connection.status.reconciled, "the gateway has compared")


@on_every_broker
async def test_resets_are_published_at_the_set_pace(kind: str, tmp_path: Path) -> None:
    """One after the other as time goes on; a reset of one device, and a cancelled one, do not wait for their turn."""
    async with open_testbed(kind, tmp_path, rules=SLOW) as testbed:
        await testbed.start()
        first, second, third, alone = [await testbed.bound(f"SN-{number}") for number in range(4)]
        await testbed.settled()
        await reset_all(testbed, first, second, third)
        await testbed.reset(alone)
        await holds(testbed, alone)
        later(testbed, STEP_MS)
        await holds(testbed, alone, first)
        later(testbed, STEP_MS)
        await holds(testbed, alone, first, second)
        (waiting,) = await testbed.store.read(lambda view: command_sql.open_of_device(view, third.pk))
        await testbed.cancel(third, waiting)
        await testbed.settled()
        await holds(testbed, alone, first, second)


@on_every_broker
async def test_the_pace_survives_restarts_and_lost_links(kind: str, tmp_path: Path) -> None:
    """Neither the comparison after a connect nor a new process publishes what waits for its turn."""
    async with open_testbed(kind, tmp_path, rules=SLOW) as testbed:
        await testbed.start()
        devices = [await testbed.bound(f"SN-{number}") for number in range(3)]
        await testbed.settled()
        await reset_all(testbed, *devices)
        testbed.proxy.cut()
        await eventually(lambda: testbed.proxy.connects == 2, "the gateway came back")
        await compared(testbed)
        assert await testbed.retained() == {}
        later(testbed, STEP_MS)
        await holds(testbed, devices[0])
        await testbed.stop()
        await testbed.start(settled=False)
        await compared(testbed)
        await holds(testbed, devices[0])
        later(testbed, STEP_MS)
        await holds(testbed, *devices[:2])


@on_every_broker
async def test_turns_missed_in_an_outage_are_not_made_up_at_once(kind: str, tmp_path: Path) -> None:
    """Back after all turns are over, the gateway publishes one, and then the next in its time."""
    async with open_testbed(kind, tmp_path, rules=SLOW) as testbed:
        await testbed.start()
        devices = [await testbed.bound(f"SN-{number}") for number in range(3)]
        await testbed.settled()
        await testbed.stop()
        await reset_all(testbed, *devices)
        later(testbed, 10 * STEP_MS)
        await testbed.start(settled=False)
        await compared(testbed)
        await holds(testbed, devices[0])
        later(testbed, STEP_MS)
        await holds(testbed, *devices[:2])


@on_every_broker
async def test_a_clock_that_is_set_back_does_not_delay_resets(kind: str, tmp_path: Path) -> None:
    """The first waits for a step at most, not for as long as the clock went back; the others follow."""
    async with open_testbed(kind, tmp_path, rules=SLOW) as testbed:
        await testbed.start()
        devices = [await testbed.bound(f"SN-{number}") for number in range(2)]
        await testbed.settled()
        await reset_all(testbed, *devices)
        later(testbed, -100 * STEP_MS)

        async def moved() -> bool:
            rows = await testbed.rows("SELECT min(not_before) AS first FROM outbox WHERE not_before > 0")
            return bool(rows[0]["first"] <= testbed.store.context.clock() + STEP_MS)

        await eventually(moved, "the turns were moved to the new time")
        later(testbed, STEP_MS)
        await holds(testbed, devices[0])
        later(testbed, STEP_MS)
        await holds(testbed, *devices)


@on_every_broker
async def test_no_reset_is_published_before_its_turn(kind: str, tmp_path: Path) -> None:
    """By the real clock, at the pace of the default setting, in the order in which they were asked for."""
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        devices = [await testbed.bound(f"SN-{number}") for number in range(12)]
        await testbed.settled()
        async with testbed.admin() as witness:
            await witness.subscribe(f"devices/+/commands/{RESET}")
            await reset_all(testbed, *devices)
            rows = await testbed.rows("SELECT not_before FROM outbox WHERE not_before > 0 ORDER BY not_before")
            came = [(system_clock(), (await witness.read_publish()).topic) for _ in devices]
        assert [topic for _, topic in came] == [device.topic(f"commands/{RESET}") for device in devices]
        waiting = [row[0] for row in rows]
        # Those that had gone out before the look into the outbox are not among them.
        assert len(waiting) >= 2
        arrived = [system for system, _ in came][-len(waiting) :]
        # The clock was read before each arrival, so it may be as old as the arrival before.
        assert all(after >= turn for turn, after in zip(waiting, [*arrived[1:], system_clock()], strict=True))
