"""Ingest by several gateways with a Mosquitto each, on one database: processor time and rate as their number grows.

Each gateway is ``gateway serve`` with its HTTP side and its workers. The load in total is the same for each number of
gateways: the devices are divided among the brokers. The floor of each figure is one gateway in the same round.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.broker import Broker, mosquitto
from bench.figures import Figure, Pair, at_most
from bench.ingest import loading, sent_by
from bench.process import HANGS_SECONDS, BenchError, Program
from bench.registry import Registry
from bench.server import Server, gateway
from bench.subject import FILTER
from gateway.store import View, open_reader
from gateway.store.location import Location

GATEWAYS: Final = (1, 2, 4)
"""Numbers of gateways of a round."""

_PER: Final = 100_000
_POLL_SECONDS: Final = 0.05
_PAUSES: Final = 10
"""A pause between two looks takes so many times as long as the look."""
_REST_SECONDS: Final = 3.0
_PER_DEVICE: Final = "50"
"""Messages a second that a gateway takes from a device before it pauses it: the load is all sent at once."""


@dataclass(frozen=True)
class Taken:
    """Heartbeats a second of all gateways together, and the processor seconds of each 100,000 heartbeats.

    What the gateways take without any load is not part of it: it grows with the time, not with the heartbeats.
    """

    per_second: float
    cpu_seconds: float


Round = dict[int, Taken]
"""What was measured, by the number of gateways."""


async def measure(registry: Registry, folder: Path, each: int) -> Round:
    """Run one round: ``each`` heartbeats from each device of the registry, to each number of gateways.

    Raises:
        BenchError: a step failed, or a message was lost.
    """
    return {count: await _taken(registry, folder / f"gateways-{count}", each, count) for count in GATEWAYS}


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Return the lines of the table."""
    lines = []
    for count in GATEWAYS[1:]:
        used = tuple(Pair(one[count].cpu_seconds, one[1].cpu_seconds) for one in rounds)
        rates = tuple(Pair(one[count].per_second, one[1].per_second) for one in rounds)
        lines += [
            Figure(f"CPU of {count} gateways for {_PER:,} heartbeats", "s", "1 gateway", used, at_most(1.1)),
            Figure(f"heartbeats stored by {count} gateways", "1/s", "1 gateway", rates),
        ]
    return lines


async def _taken(registry: Registry, folder: Path, each: int, count: int) -> Taken:
    await asyncio.to_thread(folder.mkdir, parents=True)
    copied, total = registry.copy(folder / "data-0"), each * len(registry.devices)
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(_member(copied, folder, number)) for number in range(count)]
        loads: list[Program] = []
        for number, (broker, _) in enumerate(members):
            part = replace(copied, devices=copied.devices[number::count])
            loads.append(await stack.enter_async_context(loading(part, broker, each)))
        servers = [server for _, server in members]
        rest = await _at_rest(servers)
        before = _cpu_seconds(servers)
        for load in loads:
            await load.tell("go")
        async with asyncio.TaskGroup() as group:
            held = group.create_task(_stored(copied.location, servers, total))
            sent = [group.create_task(sent_by(load)) for load in loads]
        cpu_seconds = _cpu_seconds(servers) - before
        seconds = held.result() - min(one.result().began for one in sent)
    return Taken(total / seconds, (cpu_seconds - rest * seconds) / total * _PER)


async def _at_rest(servers: Sequence[Server]) -> float:
    """Return the processor seconds of these gateways in a second without load: what they look for all the time."""
    before, began = _cpu_seconds(servers), time.monotonic()
    await asyncio.sleep(_REST_SECONDS)
    return (_cpu_seconds(servers) - before) / (time.monotonic() - began)


def _cpu_seconds(servers: Sequence[Server]) -> float:
    return sum(server.process.cpu_seconds() for server in servers)


@asynccontextmanager
async def _member(registry: Registry, folder: Path, number: int) -> AsyncIterator[tuple[Broker, Server]]:
    """Run a broker and its gateway. The first gateway has the name that the registry keeps, each other its own."""
    data_dir = folder / f"data-{number}"
    own = {} if number == 0 else {"GATEWAY_GATEWAY_ID": f"gw_bench_{number}", "GATEWAY_BROKER_ID": f"broker_{number}"}
    if number:
        shutil.copytree(folder / "data-0", data_dir, ignore=shutil.ignore_patterns("bench.log"))
    async with mosquitto(folder / f"broker-{number}", registry.broker_entries) as broker:
        settings = {**registry.environ, **own, "GATEWAY_DEVICE_MESSAGES_PER_SECOND": _PER_DEVICE}
        async with gateway(data_dir, broker, settings) as server:
            await broker.subscribed(FILTER)
            yield broker, server


async def _stored(location: Location, servers: Sequence[Server], total: int) -> float:
    """Return when (monotonic clock) the last row was committed.

    The rows are counted only when the last number says that they may all be there, and not often: counting takes long.
    """
    with closing(open_reader(location)) as registry:
        view, before, since = View(registry), 0, time.monotonic()
        while True:
            asked_at = time.monotonic()
            if (stored := _so_far(view, total)) >= total:
                break
            for server in servers:
                server.process.check()
            if stored > before:
                before, since = stored, time.monotonic()
            elif time.monotonic() > since + HANGS_SECONDS:
                raise BenchError(f"{stored} of {total} heartbeats were stored, and no more within {HANGS_SECONDS:g} s")
            await asyncio.sleep(max(_POLL_SECONDS, _PAUSES * (time.monotonic() - asked_at)))
        ended = time.monotonic()
    if stored != total:
        raise BenchError(f"{total} heartbeats were sent, {stored} are stored")
    return ended


def _so_far(view: View, total: int) -> int:
    highest: int = view.value("SELECT coalesce(max(id), 0) FROM heartbeats")
    return highest if highest < total else int(view.value("SELECT count(*) FROM heartbeats"))
