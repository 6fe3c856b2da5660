"""The synchronous standby is cut off under load; then the primary is killed, and the standby is promoted."""

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.cluster import report
from gateway.core.clock import system_clock
from gateway.core.postgres_address import PostgresAddress
from gateway.store import View, open_reader
from tests.e2e import chaos_audit as audit
from tests.e2e.chaos_events import EventReader
from tests.e2e.chaos_world import Member, at_work
from tests.e2e.cluster_world import ClusterWorld, Scale, running_cluster
from tests.e2e.program import run, script
from tests.support.measured import MEASURED, Measured
from tests.support.wait import eventually

SMALL = Scale(steady=3, troubled=3, interval=0.2, gateways=2, clock_off=False)
WAITED = "WAITED"
SETTLES_SECONDS = 60.0
"""Guard for what ends with a promotion on a busy machine; no statement about speed."""


@pytest.mark.guarantee("G1", "G2")
async def test_a_promoted_standby_has_all_that_was_confirmed(tmp_path: Path, record_property: Measured) -> None:
    """Every 200 and every PUBACK is kept, the gateways go on by themselves, and nothing is lost or happens twice."""
    async with running_cluster(tmp_path, 1, SMALL) as world:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(at_work(*(device.run() for device in world.devices)))
            for device in world.steady:
                await world.operator(device).pair()
            reader = EventReader(world)
            async with at_work(reader.run(), *(world.operator(device).run() for device in world.troubled)):
                await _works(world)
                await _shows_the_standby(world)
                await _waits_for_the_standby(world)
                await _works(world)
                await _fails_over(world, record_property)
                await world.pair.rebuild()
                await _works(world)
                await _shows_the_standby(world)
            async with at_work(reader.run()):
                await audit.wait_until_all_done(world)
                await reader.has_heard_all()
        await audit.wait_until_all_arrived(world)
        await world.settled()
        await _is_registered_once(world)
        await audit.both_sides_agree(world)
        audit.resets_are_kept(world)
        audit.no_device_wiped_twice(world)
        audit.what_was_acknowledged_is_stored(world)
        audit.only_what_was_committed_was_published(world)
        audit.no_unexpected_errors(world)
        for member in world.members:
            assert await member.gateway.stop() == 0


async def _waits_for_the_standby(world: ClusterWorld) -> None:
    """While the line between the servers is cut nothing is confirmed, and each gateway says why. Then all goes on."""
    world.replication.closed = True
    world.replication.cut()
    await eventually(world.pair.commits_wait, "a commit waits", guard_seconds=SETTLES_SECONDS)
    async with world.direct() as client:
        asked = asyncio.create_task(_register(client))
        for member in world.members:
            await eventually(_is_stuck(member), f"{member.gateway.name} says it", guard_seconds=SETTLES_SECONDS)
        assert not (asked.done() and asked.result()), "it was confirmed without the standby"
        world.replication.closed = False
        await world.pair.replicates()
        await asked
        await eventually(lambda: _register(client), "it is confirmed", guard_seconds=SETTLES_SECONDS)


async def _register(client: httpx.AsyncClient) -> bool:
    """The same request each time. Return whether it was confirmed; a gateway gives up after a while."""
    key = {"Idempotency-Key": "of-the-device-that-waited"}
    answer = await client.post("/v1/devices", json={"serial_number": WAITED}, headers=key)
    assert answer.is_success or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
    return answer.is_success


def _is_stuck(member: Member) -> Any:
    async def stuck() -> bool:
        async with httpx.AsyncClient(timeout=30.0) as client:
            metrics = (await client.get(f"{member.gateway.url}/metrics")).text
        return "gateway_database_commits_stuck 1.0" in metrics.splitlines()

    return stuck


async def _is_registered_once(world: ClusterWorld) -> None:
    """The promoted server has the device that was confirmed when the line was back."""
    async with world.direct() as client:
        found = (await client.get("/v1/devices", params={"serial_number": WAITED})).json()["data"]
        events = (await client.get(f"/v1/devices/{found[0]['id']}/events")).json()["data"]
    assert [len(found), [each["type"] for each in events]] == [1, ["device.registered"]]


async def _fails_over(world: ClusterWorld, record_property: Measured) -> None:
    """Kill the primary, wait until each gateway has noticed, promote, and measure how long they take from there."""
    await asyncio.to_thread(world.pair.kill_primary)
    for member in world.members:
        await eventually(_notices(member), f"{member.gateway.name} notices it", guard_seconds=SETTLES_SECONDS)
    await _a_standby_is_refused(world)
    await asyncio.to_thread(world.pair.promote)
    began, heard = time.monotonic(), len(world.acknowledged())
    waits = [
        eventually(_accepts(world, member), f"{member.gateway.name} accepts writes", guard_seconds=SETTLES_SECONDS)
        for member in world.members
    ]
    await asyncio.gather(*waits)
    record_property(MEASURED, f"both gateways wrote again {time.monotonic() - began:.1f} s after the promotion")
    await eventually(
        lambda: len(world.acknowledged()) > heard, "a heartbeat is acknowledged", guard_seconds=SETTLES_SECONDS
    )
    record_property(MEASURED, f"a heartbeat was acknowledged {time.monotonic() - began:.1f} s after the promotion")


def _notices(member: Member) -> Any:
    return lambda: member.gateway.logged("store.failing")


def _accepts(world: ClusterWorld, member: Member) -> Any:
    headers = {"Authorization": f"Bearer {world.key}"}
    body = {"serial_number": f"AFTER-{member.gateway.name}"}

    async def accepts() -> bool:
        async with httpx.AsyncClient(base_url=member.gateway.url, headers=headers, timeout=30.0) as client:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post("/v1/devices", json=body)
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return answer.is_success
        return False

    return accepts


async def _works(world: ClusterWorld) -> None:
    """Wait until more heartbeats were acknowledged, and more resets accepted."""
    heard, resets = len(world.acknowledged()), len(world.ledger.resets)
    await eventually(
        lambda: len(world.acknowledged()) > heard + 20 and len(world.ledger.resets) > resets + 2,
        "the cluster works",
        guard_seconds=SETTLES_SECONDS,
    )


async def _shows_the_standby(world: ClusterWorld) -> None:
    """`gateway cluster` and the metrics see the standby for which each commit waits."""
    with closing(open_reader(world.registry)) as connection:
        database = report(View(connection), system_clock())["database"]
    (standby,) = database["standbys"]
    assert (database["role"], standby["state"], standby["sync_state"]) == ("primary", "streaming", "sync")
    assert standby["name"] == world.pair.standby.folder.name
    async with httpx.AsyncClient(timeout=30.0) as client:
        metrics = (await client.get(f"{world.members[0].gateway.url}/metrics")).text
    assert 'gateway_database_standbys{sync_state="sync"} 1.0' in metrics.splitlines()
    assert "gateway_database_commits_stuck 0.0" in metrics.splitlines()


async def _a_standby_is_refused(world: ClusterWorld) -> None:
    """A tool that finds the standby alone says so, in a line."""
    url = world.pair.standby.address(_database(world)).url
    said = await run(script("gateway"), "cluster", "--database", url)
    assert (said.code, "read-only standby" in said.err, "Traceback" in said.err) == (1, True, False), said.err
    assert said.out == ""


def _database(world: ClusterWorld) -> str:
    assert isinstance(world.registry, PostgresAddress)
    return world.registry.database
