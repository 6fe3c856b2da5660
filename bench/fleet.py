"""Fleet of 19,900 connected devices: idle, during a restart of the broker, and during a reset of ten thousand.

One process runs the devices (:mod:`bench.crowd`). The floors are what broker and devices need in the same round, and
the pace that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.broker import HOST, Restartable, restartable
from bench.callers import callers, request
from bench.crowd import Count, Order, Totals
from bench.figures import Figure, Pair, at_most
from bench.process import HANGS_SECONDS, BenchError, Program, program
from bench.registry import Registry
from bench.server import Server, gateway
from gateway.store import DATABASE_NAME

DEVICES: Final = 19_900
"""A hundred less than the limit of open files per process on the reference machine."""
LEAST: Final = 200
"""Smallest fleet: a hundred devices are reset while the broker is stopped, half of all later."""
RESET: Final = 10_000
"""Size of the bulk reset; in a smaller fleet it is half of the devices."""
PER_SECOND: Final = 1_000
"""Pace of the bulk reset (``bulk_reset_per_second``). At its default, 50, ten thousand take more than three minutes."""
JITTER_SECONDS: Final = 5.0
REST_MOST: Final = 5.0
BACK_MOST: Final = 1.3
AFTER_RETURN_MOST: Final = 0.5
FLEET_RESET_MOST: Final = 1.2
"""Bounds on the ratios. The last is missed when the pace does not begin at once, or is not kept."""

_MEANWHILE: Final = 100
_AT_A_TIME: Final = 1_000
_REST_SECONDS: Final = 30.0
_MINUTE_SECONDS: Final = 70.0
_LOOK_SECONDS: Final = 0.25
_SEED: Final = 1


@dataclass(frozen=True)
class Spent:
    """Processor seconds of the three processes."""

    broker: float
    gateway: float
    devices: float


@dataclass(frozen=True)
class Round:
    """Figures of one round: ``core`` and ``broker_core`` are shares of one core, all others are seconds."""

    core: float
    broker_core: float
    all_back: float
    reset_after_return: float
    fleet_reset: float
    fleet_answered: float
    spent: Spent
    """Processor time while the devices reconnected."""


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round: connect, stay idle, restart the broker, reset the fleet.

    Raises:
        BenchError: a step failed, or a heartbeat was lost.
    """
    pace = {"GATEWAY_BULK_RESET_PER_SECOND": str(PER_SECOND)}
    async with (
        restartable(folder, registry.broker_entries) as mosquitto,
        gateway(registry.copy(folder / "data").data_dir, mosquitto.broker, pace) as server,
        _crowd(registry, mosquitto, folder / "crowd.json") as crowd,
    ):
        await crowd.tell("beat")
        core, broker_core = await _cores_at_rest(server.process, mosquitto)
        meanwhile = [name for name, _ in registry.devices[-_MEANWHILE:]]
        all_back, after_return, spent = await _restart(mosquitto, server, crowd, registry, meanwhile)
        await _nothing_lost(crowd, folder / "data", set(meanwhile))
        answered, told = await _reset_fleet(server, crowd, registry)
    return Round(core, broker_core, all_back, after_return, told, answered, spent)


def figures(rounds: list[Round], devices: int) -> list[Figure]:
    """Return the lines of the table."""
    many = _many(devices)

    def line(name: str, unit: str, values: Sequence[float]) -> Figure:
        return Figure(name, unit, "", tuple(Pair(value) for value in values))

    return [
        Figure(
            f"{devices:,} devices, a heartbeat a minute: of a core",
            "%",
            "the broker's share",
            tuple(Pair(one.core * 100, one.broker_core * 100) for one in rounds),
            at_most(REST_MOST),
        ),
        Figure(
            "broker restarted: until all devices are back",
            "s",
            "jitter, and processor of broker and devices",
            tuple(Pair(one.all_back, _alone(one.spent)) for one in rounds),
            at_most(BACK_MOST),
        ),
        line("meanwhile, processor: the broker", "s", [one.spent.broker for one in rounds]),
        line("the gateway", "s", [one.spent.gateway for one in rounds]),
        line("the devices", "s", [one.spent.devices for one in rounds]),
        Figure(
            "a reset asked meanwhile, after its device's return",
            "s",
            "until all are back",
            tuple(Pair(one.reset_after_return, one.all_back) for one in rounds),
            at_most(AFTER_RETURN_MOST),
        ),
        line(f"{many:,} devices reset: until answered", "s", [one.fleet_answered for one in rounds]),
        Figure(
            "until the last of them has it",
            "s",
            "the pace",
            tuple(Pair(one.fleet_answered + one.fleet_reset, many / PER_SECOND) for one in rounds),
            at_most(FLEET_RESET_MOST),
        ),
    ]


def _alone(spent: Spent) -> float:
    """Return the seconds in which devices and broker would be back without a gateway, on all cores of the machine."""
    return JITTER_SECONDS + (spent.broker + spent.devices) / len(os.sched_getaffinity(0))


def _many(devices: int) -> int:
    return min(RESET, devices // 2)


class Crowd:
    """The process of the devices."""

    def __init__(self, process: Program, report: Path, devices: int) -> None:
        self.process = process
        self._report = report
        self._devices = devices
        self._reset: set[str] = set()

    async def tell(self, line: str) -> None:
        """Send a line to the process."""
        await self.process.tell(line)

    async def told(self) -> Count:
        """Return the events of each device so far."""
        await self.tell("tell")
        await self.process.line("told")
        return Count(**json.loads(self._report.read_text()))

    async def all_back(self) -> None:
        """Wait until every device is connected and has subscribed."""
        await self._until(lambda totals: totals.connected == self._devices, "devices came back")

    async def all_told(self, names: set[str]) -> Count:
        """Wait until all these devices have their reset, and also those of earlier calls."""
        self._reset |= names
        await self._until(lambda totals: totals.told >= len(self._reset), "resets came")
        return await self.told()

    async def all_acknowledged(self) -> Count:
        """Wait until the broker has acknowledged every heartbeat."""
        await self._until(lambda totals: totals.acknowledged == totals.sent, "heartbeats were taken")
        return await self.told()

    async def _until(self, enough: Callable[[Totals], bool], what: str) -> None:
        deadline = time.monotonic() + HANGS_SECONDS
        while not enough(await self._totals()):
            if time.monotonic() > deadline:
                raise BenchError(f"not all {what} within {HANGS_SECONDS:g} s")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _totals(self) -> Totals:
        await self.tell("totals")
        return Totals(**json.loads(await self.process.line()))


@asynccontextmanager
async def _crowd(registry: Registry, mosquitto: Restartable, report: Path) -> AsyncIterator[Crowd]:
    order = Order(HOST, mosquitto.broker.port, registry.devices, JITTER_SECONDS, _SEED, str(report))
    async with program(sys.executable, "-m", "bench.crowd") as process:
        await process.tell(json.dumps(asdict(order)))
        await process.line("connected")
        yield Crowd(process, report, len(registry.devices))


async def _cores_at_rest(process: Program, mosquitto: Restartable) -> tuple[float, float]:
    """Return the shares of a core that gateway and broker use."""
    await asyncio.sleep(_MINUTE_SECONDS)  # the first heartbeat of each also reports its firmware and that it is online
    gateway, broker, began = process.cpu_seconds(), mosquitto.cpu_seconds(), time.monotonic()
    await asyncio.sleep(_REST_SECONDS)
    passed = time.monotonic() - began
    return (process.cpu_seconds() - gateway) / passed, (mosquitto.cpu_seconds() - broker) / passed


async def _restart(
    mosquitto: Restartable, server: Server, crowd: Crowd, registry: Registry, names: list[str]
) -> tuple[float, float, Spent]:
    """Return the seconds until all were back, and the longest wait of ``names`` for their reset after their return."""
    await mosquitto.stop()
    async with callers(server.port, 1) as http:
        await http.call([request("POST", f"/v1/devices/{name}/reset", registry.api_key) for name in names])
    began, gateway, devices = time.monotonic(), server.process.cpu_seconds(), crowd.process.cpu_seconds()
    await mosquitto.start()
    await crowd.all_back()
    spent = Spent(
        mosquitto.cpu_seconds(), server.process.cpu_seconds() - gateway, crowd.process.cpu_seconds() - devices
    )
    back = (await crowd.told()).back
    told = (await crowd.all_told(set(names))).told
    waited = max(told[name] - back[name] for name in names)
    return max(back.values()) - began, max(0.0, waited), spent


async def _nothing_lost(crowd: Crowd, data_dir: Path, reset: set[str]) -> None:
    """Check that every heartbeat is stored once, for each device that may still send."""
    await crowd.tell("quiet")
    sent = {name: count for name, count in (await crowd.all_acknowledged()).sent.items() if name not in reset}
    deadline = time.monotonic() + HANGS_SECONDS
    while (stored := _stored(data_dir)) and any(stored.get(name) != count for name, count in sent.items()):
        if time.monotonic() > deadline:
            missing = sum(count - stored.get(name, 0) for name, count in sent.items())
            raise BenchError(f"{missing} heartbeats that the broker has acknowledged are not stored")
        await asyncio.sleep(_LOOK_SECONDS)


def _stored(data_dir: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"{(data_dir / DATABASE_NAME).as_uri()}?mode=ro", uri=True)) as registry:
        query = "SELECT d.id, count(*) FROM heartbeats h JOIN devices d ON d.pk = h.device_pk GROUP BY d.pk"
        return dict(registry.execute(query).fetchall())


async def _reset_fleet(server: Server, crowd: Crowd, registry: Registry) -> tuple[float, float]:
    """Return the seconds until the last answer, and from there until the last device received its reset."""
    names = [name for name, _ in registry.devices[: _many(len(registry.devices))]]
    calls = [
        request("POST", "/v1/devices/bulk/reset", registry.api_key, json.dumps({"device_ids": some}).encode())
        for some in (names[start : start + _AT_A_TIME] for start in range(0, len(names), _AT_A_TIME))
    ]
    began = time.monotonic()
    async with callers(server.port, 1) as http:
        await http.call(calls)
    answered = time.monotonic()
    count = await crowd.all_told(set(names))
    return answered - began, max(0.0, max(count.told[name] for name in names) - answered)
