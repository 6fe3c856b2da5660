"""A cluster under chaos: three gateways, a PostgreSQL primary with its synchronous standby, lines between all of them.

operators ──http──▶ gateways ──lines──▶ Mosquitto ◀──air── devices
                        └──────lines──▶ primary ──line──▶ standby
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from tests.e2e.chaos_world import (
    SETTLE_SECONDS,
    ChaosWorld,
    Member,
    add_devices,
    prepared_member,
    running_cells,
    version_of,
)
from tests.e2e.program import started
from tests.support.postgres import execute
from tests.support.postgres_pair import PairedServer, PostgresPair
from tests.support.proxy import Proxy, SocketProxy
from tests.support.wait import eventually

LEASE_SECONDS = 6
HOUR_SECONDS = 3_600

_DATABASE = "registry"
_DISK_KIB = 384 * 1024
_AT_WORK = """SELECT pid, backend_type, application_name, state, wait_event_type, wait_event,
    (clock_timestamp() - xact_start)::text AS transaction_age, (clock_timestamp() - state_change)::text AS state_age,
    pg_blocking_pids(pid)::text AS blocked_by, left(query, 200) FROM pg_stat_activity
    WHERE backend_type IN ('client backend', 'walsender') AND (state <> 'idle' OR wait_event_type = 'Lock')"""
_SHIFTED = Path(__file__).with_name("clock_set_back.py")


@dataclass(frozen=True)
class Scale:
    """How many devices are left alone, how many are reset and fail, and how often they say something (seconds).

    `clock_off`: the clock of one gateway is an hour off. `homes`: each device has one broker, and is moved.
    """

    steady: int = 4
    troubled: int = 8
    interval: float = 0.3
    gateways: int = 3
    brokers: int = 1
    clock_off: bool = True
    homes: bool = False


@dataclass
class ClusterWorld(ChaosWorld):
    """The parts of the cluster."""

    pair: PostgresPair = field(default_factory=PostgresPair)
    scale: Scale = field(default_factory=Scale)
    replication: Proxy = field(default_factory=lambda: Proxy(lambda: 0))
    """The line by which the standby follows the primary, whichever of the two servers that is."""

    def lines(self) -> list[Proxy]:
        """Everything that can be cut."""
        return [*super().lines(), self.replication]

    async def settled(self) -> None:
        """Wait until every gateway is ready, and one of them serves each broker."""
        try:
            await super().settled()
            await eventually(self.serving, "a gateway serves each broker", guard_seconds=SETTLE_SECONDS)
        except AssertionError:
            self.log_server()
            raise

    def log_server(self) -> None:
        """Tell what the database does."""
        with contextlib.suppress(psycopg.Error):
            for row in execute(self.pair.primary, _AT_WORK):
                self.log(f"at the server: {row}")

    async def serving(self) -> list[Member]:
        """Return the gateways that serve a broker; none while a broker has no owner."""
        found = []
        async with httpx.AsyncClient(timeout=30.0) as client:
            for member in self.members:
                with contextlib.suppress(httpx.TransportError):
                    report = (await client.get(f"{member.gateway.url}/ready")).json()
                    if any(each["held"] for each in report["leases"] if each["name"].startswith("broker:")):
                        found.append(member)
        return found if len(found) == len(self.cells) else []


@asynccontextmanager
async def running_cluster(folder: Path, seed: int, scale: Scale) -> AsyncIterator[ClusterWorld]:
    """Start everything, make devices with an empty flash, and stop everything at the end."""
    async with contextlib.AsyncExitStack() as stack:
        roaming = random.Random(f"{seed}/roaming")  # noqa: S311 - to come again
        cells = await stack.enter_async_context(running_cells(folder, roaming, scale.brokers, homes=scale.homes))
        line = await stack.enter_async_context(SocketProxy(lambda: pair.primary.socket))
        pair = stack.enter_context(PostgresPair(disk_kib=_DISK_KIB, line_port=line.port))
        execute(pair.primary, f"CREATE DATABASE {_DATABASE}")
        await pair.replicates()
        world = ClusterWorld(
            *(seed, folder, [], cells, pair.address(_DATABASE), ""), pair=pair, scale=scale, replication=line
        )
        clocks: list[tuple[str, ...]] = [()] * scale.gateways
        if scale.clock_off:
            clocks[world.rng("clock").randrange(scale.gateways)] = _clock_off(world)
        for number, by in enumerate(clocks):
            world.members.append(await stack.enter_async_context(_member(world, number, by)))
            world.key = world.key or await asyncio.to_thread(world.members[0].gateway.new_key)
        world.log(f"{scale.gateways} gateways run")
        stack.callback(world.stop_reading)
        await add_devices(world, stack, scale.steady, scale.troubled, scale.interval)
        yield world


def broker_id(number: int) -> str:
    """Return the id of the broker of this number."""
    return f"broker_{number}"


def _clock_off(world: ClusterWorld) -> tuple[str, ...]:
    """Return the program that gives a gateway a wrong clock."""
    seconds = world.rng("clock").choice((HOUR_SECONDS, -HOUR_SECONDS))
    world.log(f"the clock of one gateway is {-seconds} s off")
    return sys.executable, str(_SHIFTED), str(seconds)


@asynccontextmanager
async def _member(world: ClusterWorld, number: int, by: tuple[str, ...]) -> AsyncIterator[Member]:
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(_database_line(server)) for server in world.pair.servers]
        hosts = ",".join(f"127.0.0.1:{line.port}" for line in lines)
        options = (
            *("--database", f"postgresql://gateway@{hosts}/{_DATABASE}?sslmode=disable"),
            *("--gateway-id", f"gw_{number}", "--lease-seconds", str(LEASE_SECONDS)),
            *("--broker-id", broker_id(number % len(world.cells)), "--cells", "home" if world.scale.homes else "any"),
        )
        cell = world.cells[number % len(world.cells)]
        folder = world.folder / f"gw_{number}"
        member = await stack.enter_async_context(prepared_member(folder, cell, version_of(world.seed), *options, by=by))
        member.gateway.name, member.database = f"gw_{number}", tuple(lines)
        await stack.enter_async_context(started(member.gateway))
        yield member


def _database_line(server: PairedServer) -> SocketProxy:
    return SocketProxy(lambda: server.socket)
