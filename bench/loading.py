"""Capacity of ``device-sim load``, at a fixed pace and at full speed, against a sink that only counts.

If the load were slower than the gateway, it would limit the measurement. The floor is the bare loop of
:mod:`bench.yardstick`: the gateway takes in no more for a second of processor.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.broker import HOST
from bench.figures import Figure, Pair, at_least
from bench.process import program
from bench.registry import Registry
from bench.yardstick import HEARTBEATS, bare_loop_seconds
from device_sim.binding import Endpoint
from device_sim.load_devices import write_devices

PACE: Final = 90_000
"""Three times the heartbeats per second that the gateway stores on the reference machine."""

_SECONDS: Final = 4.0
_UNPACED: Final = 0


@dataclass(frozen=True)
class Made:
    """Heartbeats a second: acknowledged ones by the clock, sent ones by the program's processor time."""

    per_second: float
    per_cpu_second: float


@dataclass(frozen=True)
class Round:
    """Results at a fixed pace and at full speed."""

    paced: Made
    unpaced: Made
    bare_loop_seconds: float


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round of each.

    Raises:
        BenchError: a step failed, or a heartbeat was not acknowledged.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    paced, unpaced = [await _made(registry, folder / f"{rate}.json", rate) for rate in (PACE, _UNPACED)]
    return Round(paced, unpaced, await asyncio.to_thread(bare_loop_seconds))


def figures(rounds: list[Round]) -> list[Figure]:
    """Return the lines of the table."""

    def by_clock(name: str, values: Sequence[float]) -> Figure:
        return Figure(name, "1/s", "", tuple(Pair(value) for value in values))

    def by_processor(made: Sequence[Made]) -> Figure:
        parsed = [HEARTBEATS / one.bare_loop_seconds for one in rounds]
        pairs = tuple(Pair(one.per_cpu_second, floor) for one, floor in zip(made, parsed, strict=True))
        return Figure("the same, for a second of processor", "1/s", "bare loop in memory", pairs, at_least(1))

    return [
        by_clock(f"device-sim load --rate {PACE}", [one.paced.per_second for one in rounds]),
        by_processor([one.paced for one in rounds]),
        by_clock("device-sim load --rate 0", [one.unpaced.per_second for one in rounds]),
        by_processor([one.unpaced for one in rounds]),
    ]


async def _made(registry: Registry, credentials: Path, rate: int) -> Made:
    async with program(sys.executable, "-m", "bench.sink") as sink:
        port = int(await sink.line("port"))
        await asyncio.to_thread(write_devices, credentials, Endpoint(HOST, port), list(registry.devices))
        what = ("--devices", str(len(registry.devices)), "--rate", str(rate), "--seconds", str(_SECONDS))
        command = (sys.executable, "-m", "device_sim", "load", *what, "--credentials", str(credentials), "--json")
        async with program(*command) as load:
            facts = json.loads(await load.line())
            await load.ended()
    return Made(facts["per_second"], facts["per_cpu_second"])
