"""Reading a device over HTTP while the gateway takes all the heartbeats that the broker hands it.

The floor is the same gateway with nothing else to do, just before and just after. A client of one connection reads one
device after the other, a few milliseconds apart, in all three phases.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
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
"""Reads before, and as many after."""

_PAUSE_SECONDS: Final = 0.004
_PERCENTILES: Final = (50, 99)
_MS: Final = 1_000


@dataclass(frozen=True)
class Round:
    """Milliseconds of each read, and the heartbeats that were stored in a second meanwhile."""

    busy: tuple[float, ...]
    at_rest: tuple[float, ...]
    stored_per_second: float


async def measure(registry: Registry, folder: Path, each: int) -> Round:
    """One round, with ``each`` heartbeats from each device.

    Raises:
        BenchError: something did not work, or a heartbeat was lost.
    """
    async with gateway_stack(registry, folder) as server, caller(server.port, registry.api_key) as http:
        assert server.broker, "it runs beside Mosquitto"
        reader = _Reader(http, [name for name, _ in registry.devices])
        before = await reader.read(lambda taken: len(taken) >= AT_REST)
        async with program(sys.executable, "-m", "bench.load") as load:
            await load.tell(json.dumps(asdict(Order(HOST, server.broker.port, registry.devices, each))))
            await load.line("ready")
            await load.tell("go")
            began = time.monotonic()
            with closing(_Heartbeats(folder / "data", each * len(registry.devices))) as heartbeats:
                busy = await reader.read(heartbeats.all_stored)
            seconds = time.monotonic() - began
        after = await reader.read(lambda taken: len(taken) >= AT_REST)
    return Round(tuple(busy), (*before, *after), heartbeats.wanted / seconds)


def figures(rounds: list[Round]) -> list[Figure]:
    """The lines of the table."""
    return [
        Figure(
            f"reading a device under full ingest, p{percent}",
            "ms",
            "the same at rest",
            tuple(Pair(percentile(one.busy, percent), percentile(one.at_rest, percent)) for one in rounds),
            at_most(3) if percent == max(_PERCENTILES) else None,
        )
        for percent in _PERCENTILES
    ]


class _Heartbeats:
    """How many of those that are ``wanted`` the registry has."""

    def __init__(self, data_dir: Path, wanted: int) -> None:
        self.wanted = wanted
        self._registry = sqlite3.connect(f"{(data_dir / DATABASE_NAME).as_uri()}?mode=ro", uri=True)
        self._deadline = time.monotonic() + HANGS_SECONDS

    def all_stored(self, _: object) -> bool:
        """Whether it has all; raises BenchError when that takes so long that something hangs."""
        stored: int = self._registry.execute("SELECT coalesce(max(id), 0) FROM heartbeats").fetchone()[0]
        if stored < self.wanted and time.monotonic() > self._deadline:
            raise BenchError(f"{stored} of {self.wanted} heartbeats were stored within {HANGS_SECONDS:g} s")
        return stored >= self.wanted

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()


class _Reader:
    """Reads the devices in turn."""

    def __init__(self, http: Caller, names: list[str]) -> None:
        self._http = http
        self._names = names
        self._next = 0

    async def read(self, enough: Callable[[list[float]], bool]) -> list[float]:
        """Milliseconds of each read, until there are enough."""
        taken: list[float] = []
        while not enough(taken):
            await asyncio.sleep(_PAUSE_SECONDS)
            name = self._names[self._next % len(self._names)]
            self._next += 1
            began = time.perf_counter()
            status = await self._http.call("GET", f"/v1/devices/{name}")
            taken.append((time.perf_counter() - began) * _MS)
            if status != OK:
                raise BenchError(f"a device could not be read: {status}")
        return taken
