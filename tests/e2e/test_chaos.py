"""Chaos on real parts: gateway and broker are killed, lines cut and stalled, devices lose power, operators go on.

A round is drawn from its seed, which stands in the story that a failing round prints. `make chaos ROUNDS=100` plays
new ones, `make chaos ROUNDS=1 SEED=…` one of them again, as far as real processes allow.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e import chaos_audit as audit
from tests.e2e.chaos_faults import FORGETFUL, FaultInjector, drawn
from tests.e2e.chaos_jobs import FleetTeam, jobs_are_in_order, wait_until_jobs_end
from tests.e2e.chaos_world import ChaosWorld, at_work, running_round

HANGS_SECONDS = 400.0


def seeds() -> range:
    """The same ten each time, unless others are asked for."""
    first = int(os.environ.get("CHAOS_SEED", "1"))
    return range(first, first + int(os.environ.get("CHAOS_ROUNDS", "10")))


@pytest.mark.guarantee("G1", "G2", "G7")
@pytest.mark.parametrize("seed", seeds())
async def test_nothing_is_lost_and_nothing_happens_twice(tmp_path: Path, seed: int) -> None:
    """After a few seconds of faults and ordinary work every promise of the contract's section 4 is found kept."""
    async with asyncio.timeout(HANGS_SECONDS), running_round(tmp_path, seed) as world:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(at_work(*(device.run() for device in world.devices)))
            team = FleetTeam(world, await stack.enter_async_context(world.api("jobs")))
            await _under_load(world, team)
            world.log("the faults are over")
            await wait_until_jobs_end(world)
            await audit.wait_until_all_done(world)
        await audit.wait_until_all_arrived(world)
        await world.settled()
        jobs_are_in_order(world, team)
        await _audited(world)


async def _under_load(world: ChaosWorld, team: FleetTeam) -> None:
    for device in world.steady:
        await world.operator(device).pair()
    operators = [world.operator(device) for device in world.troubled]
    faults = drawn(world.rng("faults"))
    world.broker_may_forget = any(fault.name in FORGETFUL for fault in faults)
    with world.heal():
        async with at_work(team.run(), *(operator.run() for operator in operators)):
            await FaultInjector(world).all_of(faults)


async def _audited(world: ChaosWorld) -> None:
    await audit.both_sides_agree(world)
    audit.resets_are_kept(world)
    audit.certificates_are_whole(world)
    audit.no_device_wiped_twice(world)
    audit.what_was_acknowledged_is_stored(world)
    audit.only_what_was_committed_was_published(world)
    await audit.dead_tokens_open_nothing(world)
    assert await world.members[0].gateway.stop() == 0
    audit.the_database_is_whole(world)
    audit.no_unexpected_errors(world)
