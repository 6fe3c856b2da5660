"""Chaos in a cluster: gateways are killed and frozen, the database fails over, lines are cut, operators go on.

One cluster plays ten rounds, drawn from its seed, with devices that roam between two brokers. `make chaos-cluster
ROUNDS=100` plays ten clusters with more devices; in every other cluster each device has one broker as its home, and is
moved. `make chaos-cluster ROUNDS=10 SEED=…` plays one of them again, as far as real processes allow.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e import chaos_audit as audit
from tests.e2e.chaos_events import EventReader
from tests.e2e.chaos_faults import FORGETFUL
from tests.e2e.chaos_homes import CellTeam, wait_until_homes_alone
from tests.e2e.chaos_jobs import FleetTeam, jobs_are_in_order, wait_until_jobs_end
from tests.e2e.chaos_world import at_work
from tests.e2e.cluster_faults import ClusterFaultInjector, drawn_for
from tests.e2e.cluster_world import ClusterWorld, Scale, running_cluster
from tests.support.wait import eventually

HANGS_SECONDS = 2_400.0
OPERATORS = 12
"""At work in a round; each has one device in hand."""
ASKED = int(os.environ.get("CLUSTER_ROUNDS", "10"))
ROUNDS = min(10, ASKED)
"""Rounds that one cluster plays."""


def clusters() -> range:
    """The seeds: always the same one, unless others are asked for."""
    first = int(os.environ.get("CLUSTER_SEED", "1"))
    return range(first, first + -(-ASKED // ROUNDS))


def scale(seed: int) -> Scale:
    """Few devices, unless a number of devices is asked for. They roam, or have homes where the seed is even."""
    devices = int(os.environ.get("CLUSTER_DEVICES", "0"))
    if not devices:
        return Scale(brokers=2, homes=seed % 2 == 0)
    return Scale(devices // 4, devices - devices // 4, devices / 40, brokers=2, homes=seed % 2 == 0)


@pytest.mark.guarantee("G1", "G2", "G7")
@pytest.mark.parametrize("seed", clusters())
async def test_a_cluster_loses_nothing_and_does_nothing_twice(tmp_path: Path, seed: int) -> None:
    """After rounds of faults and ordinary work every promise of the contract's section 4 is found kept."""
    async with asyncio.timeout(HANGS_SECONDS), running_cluster(tmp_path, seed, scale(seed)) as world:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(at_work(*(device.run() for device in world.devices)))
            team = FleetTeam(world, await stack.enter_async_context(world.api("jobs")))
            movers = CellTeam(world, await stack.enter_async_context(world.api("cells")))
            for device in world.steady:
                await world.operator(device).pair()
            reader = EventReader(world)
            async with at_work(reader.run()):
                for number in range(ROUNDS):
                    await _round(world, team, movers, number)
                await reader.has_heard_all()
        await audit.wait_until_all_arrived(world)
        await world.settled()
        await _audited(world, team)


async def _round(world: ClusterWorld, team: FleetTeam, movers: CellTeam, number: int) -> None:
    faults = drawn_for(world.rng(f"faults {number}"), number + world.seed)
    world.broker_may_forget |= any(fault.name in FORGETFUL for fault in faults)
    world.log(f"round {number} begins")
    hands = world.rng(f"hands {number}").sample(world.troubled, min(len(world.troubled), OPERATORS))
    operators = [world.operator(device, f" in round {number}") for device in hands]
    with world.heal():
        async with at_work(team.run(), movers.run(), *(operator.run() for operator in operators)):
            await ClusterFaultInjector(world).all_of(faults)
    world.log(f"the faults of round {number} are over")
    await wait_until_jobs_end(world)
    await audit.wait_until_all_done(world)
    await _both_sides_agree(world)
    await wait_until_homes_alone(world)
    world.log(f"round {number} has ended, {movers.moved} moves until now")


async def _both_sides_agree(world: ClusterWorld) -> None:
    """Retained messages = open commands, once what was on its way has arrived."""

    async def agree() -> bool:
        try:
            await audit.both_sides_agree(world)
        except AssertionError:
            return False
        return True

    await eventually(agree, "retained messages are the open commands")


async def _audited(world: ClusterWorld, team: FleetTeam) -> None:
    jobs_are_in_order(world, team)
    await audit.both_sides_agree(world)
    audit.resets_are_kept(world)
    audit.certificates_are_whole(world)
    audit.no_device_wiped_twice(world)
    audit.what_was_acknowledged_is_stored(world)
    audit.only_what_was_committed_was_published(world)
    await audit.dead_tokens_open_nothing(world)
    for member in world.members:
        assert await member.gateway.stop() == 0
    audit.no_unexpected_errors(world)
