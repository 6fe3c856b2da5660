"""Latency of reading a device over HTTP while the gateway ingests heartbeats as fast as the broker sends them.

The floor is the same gateway without load, just before and just after. A client with one connection reads one device
after the other, a few milliseconds apart, in all three phases. Then it reads from a server that only answers, beside
the same gateway under the same load. That is the delay of any program on this machine.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench.broker import HOST
from bench.caller import Caller, caller
from bench.figures import Figure, Pair, at_most, percentile
from bench.load import Order
from bench.process import HANGS_SECONDS, BenchError, program
from bench.registry import Registry
from bench.server import OK, gateway_stack
from gateway.store import DATABASE_NAME

AT_REST: Final = 150
"""Reads before the load, and as many after it."""

_PAUSE_SECONDS: Final = 0.004
_PERCENTILES: Final = (50, 99)
_MS: Final = 1_000


@dataclass(frozen=True)
class Round:
    """Milliseconds of each read, and the heartbeats stored per second in the same time."""

    busy: tuple[float, ...]
    at_rest: tuple[float, ...]
    bystander: tuple[float, ...]
    stored_per_second: float


async def measure(registry: Registry, folder: Path, each: int) -> Round:
    """Run one round, with ``each`` heartbeats from each device.

    Raises:
        BenchError: a step failed, or a heartbeat was lost.
    """
    async with gateway_stack(registry, folder) as server, caller(server.port, registry.api_key) as http:
        assert server.broker, "it runs beside Mosquitto"
        reader = _Reader(http, [name for name, _ in registry.devices])
        before = await reader.read(lambda taken: len(taken) >= AT_REST)
        order = Order(HOST, server.broker.port, registry.devices, each)
        busy, seconds = await _under_load(reader, order, folder)
        after = await reader.read(lambda taken: len(taken) >= AT_REST)
        bystander = await _bystander(reader.names, replace(order, first=each), folder)
    return Round(tuple(busy), (*before, *after), tuple(bystander), each * len(registry.devices) / seconds)


async def _bystander(names: list[str], order: Order, folder: Path) -> list[float]:
    async with (
        program(sys.executable, "-m", "bench.bystander") as process,
        caller(int(await process.line("HTTP")), "") as http,
    ):
        times, _ = await _under_load(_Reader(http, names), order, folder)
    return times


async def _under_load(reader: _Reader, order: Order, folder: Path) -> tuple[list[float], float]:
    """Read until so many more heartbeats are stored. Return the time of each read, and the seconds of the phase."""
    async with program(sys.executable, "-m", "bench.load") as load:
        await load.tell(json.dumps(asdict(order)))
        await load.line("ready")
        with closing(_Heartbeats(folder / "data", order.each * len(order.devices))) as heartbeats:
            await load.tell("go")
            began = time.monotonic()
            return await reader.read(heartbeats.all_stored), time.monotonic() - began


def figures(rounds: list[Round]) -> list[Figure]:
    """Return the lines of the table."""
    return [
        Figure(
            f"reading a device under full ingest, p{percent}",
            "ms",
            "the same at rest",
            tuple(Pair(percentile(one.busy, percent), percentile(one.at_rest, percent)) for one in rounds),
            at_most(3) if percent == max(_PERCENTILES) else None,
        )
        for percent in _PERCENTILES
    ] + [
        Figure(
            f"reading a device under full ingest, p{max(_PERCENTILES)}, beside a bystander",
            "ms",
            "a server that does nothing else, under the same ingest",
            tuple(
                Pair(*(percentile(times, max(_PERCENTILES)) for times in (one.busy, one.bystander))) for one in rounds
            ),
        )
    ]


class _Heartbeats:
    """Check whether the registry holds ``more`` heartbeats than at the start."""

    def __init__(self, data_dir: Path, more: int) -> None:
        self._registry = sqlite3.connect(f"{(data_dir / DATABASE_NAME).as_uri()}?mode=ro", uri=True)
        self._wanted = self._stored() + more
        self._deadline = time.monotonic() + HANGS_SECONDS

    def all_stored(self, _: object) -> bool:
        """Return whether all are stored. Raise BenchError after the time limit."""
        stored = self._stored()
        if stored < self._wanted and time.monotonic() > self._deadline:
            raise BenchError(f"{stored} of {self._wanted} heartbeats were stored within {HANGS_SECONDS:g} s")
        return stored >= self._wanted

    def _stored(self) -> int:
        stored: int = self._registry.execute("SELECT coalesce(max(id), 0) FROM heartbeats").fetchone()[0]
        return stored

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()


class _Reader:
    """Client that reads the devices in turn."""

    def __init__(self, http: Caller, names: list[str]) -> None:
        self._http = http
        self.names = names
        self._next = 0

    async def read(self, enough: Callable[[list[float]], bool]) -> list[float]:
        """Read until ``enough`` returns true, and return the milliseconds of each read."""
        taken: list[float] = []
        while not enough(taken):
            await asyncio.sleep(_PAUSE_SECONDS)
            name = self.names[self._next % len(self.names)]
            self._next += 1
            began = time.perf_counter()
            status = await self._http.call("GET", f"/v1/devices/{name}")
            taken.append((time.perf_counter() - began) * _MS)
            if status != OK:
                raise BenchError(f"a device could not be read: {status}")
        return taken
