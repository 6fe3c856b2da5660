"""Ingest of heartbeats: QoS 1, 1,000 devices, acknowledged after the commit, counted afterwards.

On SQLite the floor is ``mosquitto_sub`` at the same subscription under the same load; its output is discarded. On
PostgreSQL it is :mod:`bench.bare_ingest`, and the gateway on SQLite stands beside it in each round.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.broker import GATEWAY_USER, HOST, Broker, mosquitto
from bench.figures import Figure, Pair, at_least, at_most
from bench.load import Order, Sent
from bench.process import HANGS_SECONDS, BenchError, Program, program
from bench.registry import Registry
from bench.subject import FILTER, PASSWORD_VARIABLE
from bench.yardstick import HEARTBEATS, bare_loop_seconds
from broker_config import local
from gateway.store import View, open_reader
from gateway.store.location import Location

MOST_EACH: Final = 100
"""Most heartbeats per device. The broker queues 100,000 messages (``max_queued_messages``) per subscriber and drops
more."""

CPU_MOST: Final = 4.5
"""Processor time of the gateway, of that of a loop which only parses the heartbeats."""

_POLL_SECONDS: Final = 0.005
_PER: Final = HEARTBEATS


@dataclass(frozen=True)
class Taken:
    """Result of one side in one round."""

    messages_per_second: float
    offered_per_second: float
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Round:
    """The sides of one round."""

    gateway: Taken
    floor: Taken
    sqlite: Taken | None = None
    """The gateway on SQLite, where the round was on PostgreSQL."""
    bare_loop_seconds: float = 0.0
    """Processor time of the bare loop on SQLite's rounds (:mod:`bench.yardstick`)."""


async def measure(registry: Registry, folder: Path, each: int, sqlite: Registry | None = None) -> Round:
    """Run one round: ``each`` heartbeats from each device, once to the gateway and once to the floor.

    ``sqlite``: a registry for the gateway on SQLite beside them.

    Raises:
        BenchError: a step failed, or a message was lost.
    """
    if sqlite is None:
        beside = await floor(registry, folder / "floor", each)
        taken = await _gateway(registry, folder / "gateway", each)
        return Round(taken, beside, bare_loop_seconds=await asyncio.to_thread(bare_loop_seconds))
    beside = await _bare(registry, folder / "floor", each)
    taken = await _gateway(registry, folder / "gateway", each)
    return Round(taken, beside, await _gateway(sqlite, folder / "sqlite", each))


def figures(rounds: list[Round], each: int, devices: int, least: float) -> list[Figure]:
    """Return the lines of the table; ``least`` is the ratio that the rate is to reach beside ``mosquitto_sub``."""

    def cpu(taken: Taken) -> float:
        return taken.cpu_seconds / (each * devices) * _PER

    rates = tuple(Pair(one.gateway.messages_per_second, one.floor.messages_per_second) for one in rounds)
    offered = tuple(Pair(one.gateway.offered_per_second, one.floor.offered_per_second) for one in rounds)
    beside = [(one.gateway, one.sqlite) for one in rounds if one.sqlite is not None]
    if not beside:
        used = tuple(Pair(cpu(one.gateway), one.bare_loop_seconds) for one in rounds)
        return [
            Figure("heartbeats stored", "1/s", "mosquitto_sub", rates, at_least(least)),
            Figure(f"CPU for {_PER:,} of them", "s", "bare loop in memory", used, at_most(CPU_MOST)),
            Figure("load the broker took meanwhile", "1/s", "mosquitto_sub", offered),
        ]
    used = tuple(Pair(cpu(here), cpu(there)) for here, there in beside)
    return [
        Figure("heartbeats stored on PostgreSQL", "1/s", "bare loop", rates, at_least(0.8)),
        Figure(f"gateway CPU for {_PER:,} of them", "s", "the gateway on SQLite", used, at_most(1.5)),
        Figure("load the broker took meanwhile", "1/s", "bare loop", offered),
    ]


async def _gateway(registry: Registry, folder: Path, each: int) -> Taken:
    copied = registry.copy(folder / "data")
    total = each * len(registry.devices)
    async with (
        mosquitto(folder, registry.broker_entries) as broker,
        subject_on(copied, broker) as subject,
        loading(registry, broker, each) as load,
    ):
        before = subject.cpu_seconds()
        await load.tell("go")
        async with asyncio.TaskGroup() as group:
            held = group.create_task(stored(copied.location, subject, total))
            sent = group.create_task(sent_by(load))
        cpu_seconds = subject.cpu_seconds() - before
    _check_count(copied.location, total)
    return _taken(total, sent.result(), held.result(), cpu_seconds)


async def _bare(registry: Registry, folder: Path, each: int) -> Taken:
    """Run one round of the floor on PostgreSQL."""
    assert registry.databases, "a registry on PostgreSQL"
    database, total = registry.databases.new(), each * len(registry.devices)
    async with mosquitto(folder, registry.broker_entries) as broker:
        command = (sys.executable, "-m", "bench.bare_ingest", database.url, str(broker.port), str(total))
        async with (
            program(*command, environ={PASSWORD_VARIABLE: broker.password}) as subject,
            loading(registry, broker, each) as load,
        ):
            await subject.tell(" ".join(name for name, _ in registry.devices))
            await broker.subscribed(FILTER)
            before = subject.cpu_seconds()
            await load.tell("go")
            async with asyncio.TaskGroup() as group:
                held = group.create_task(stored(database, subject, total))
                sent = group.create_task(sent_by(load))
            cpu_seconds = subject.cpu_seconds() - before
            await subject.ended()
    return _taken(total, sent.result(), held.result(), cpu_seconds)


async def floor(registry: Registry, folder: Path, each: int) -> Taken:
    """Run one round of the floor."""
    total = each * len(registry.devices)
    async with (
        mosquitto(folder, registry.broker_entries) as broker,
        _subscriber(broker, total) as subscriber,
        loading(registry, broker, each) as load,
    ):
        await broker.subscribed(FILTER)
        await load.tell("go")
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(_end_of(subscriber))
            sent = group.create_task(sent_by(load))
    return _taken(total, sent.result(), ended.result())


def _taken(total: int, sent: Sent, ended: float, cpu_seconds: float = 0.0) -> Taken:
    return Taken(total / (ended - sent.began), total / (sent.ended - sent.began), cpu_seconds)


async def sent_by(load: Program) -> Sent:
    """Return the report of the load, which follows the broker's last acknowledgement."""
    return Sent(**json.loads(await load.line()))


async def _end_of(subscriber: Program) -> float:
    await subscriber.ended()
    return time.monotonic()


@asynccontextmanager
async def loading(registry: Registry, broker: Broker, each: int, first: int = 0) -> AsyncIterator[Program]:
    """Connect the devices of the load. They wait for a line before they send."""
    async with program(sys.executable, "-m", "bench.load") as load:
        await load.tell(json.dumps(asdict(Order(HOST, broker.port, registry.devices, each, first))))
        await load.line("ready")
        yield load


@asynccontextmanager
async def subject_on(registry: Registry, broker: Broker) -> AsyncIterator[Program]:
    """Run the gateway's ingest; it is connected and ready in the block."""
    command = (sys.executable, "-m", "bench.subject", str(registry.data_dir), str(broker.port))
    async with program(*command, environ={PASSWORD_VARIABLE: broker.password, **registry.environ}) as subject:
        await subject.line("ready")
        yield subject


@asynccontextmanager
async def _subscriber(broker: Broker, total: int) -> AsyncIterator[Program]:
    who = ("-h", HOST, "-p", str(broker.port), "-u", GATEWAY_USER, "-P", broker.password)
    what = ("-q", "1", "-t", FILTER, "-C", str(total))
    async with program(local.binary("mosquitto_sub"), *who, *what, stdout=asyncio.subprocess.DEVNULL) as subscriber:
        yield subscriber


async def stored(location: Location, subject: Program, total: int, after: int = 0) -> float:
    """Return when (monotonic clock) so many rows with a number above ``after`` were committed.

    One gateway commits in the order of the numbers, with gaps on PostgreSQL. So only the new rows are counted each
    time.
    """
    so_far = 0
    with closing(open_reader(location)) as registry:
        deadline = time.monotonic() + HANGS_SECONDS
        while so_far < total:
            subject.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{so_far} of {total} heartbeats were stored within {HANGS_SECONDS:g} s")
            (new,) = View(registry).all(
                "SELECT count(*) AS count, coalesce(max(id), ?1) AS newest FROM heartbeats WHERE id > ?1", after
            )
            so_far, after = so_far + new["count"], new["newest"]
            if not new["count"]:
                await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic()


def _check_count(location: Location, total: int) -> None:
    with closing(open_reader(location)) as registry:
        stored = View(registry).value("SELECT count(*) FROM heartbeats")
    if stored != total:
        raise BenchError(f"{total} heartbeats were sent and acknowledged, {stored} are stored")
