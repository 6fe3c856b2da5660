"""Capacity of ``device-sim load``, at a fixed pace and at full speed, against a sink that only counts.

If the load were slower than the gateway, it would limit the measurement. There is no floor.
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


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round of each.

    Raises:
        BenchError: a step failed, or a heartbeat was not acknowledged.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    return Round(*[await _made(registry, folder / f"{rate}.json", rate) for rate in (PACE, _UNPACED)])


def figures(rounds: list[Round]) -> list[Figure]:
    """Return the lines of the table."""

    def line(name: str, values: Sequence[float], least: float | None = None) -> Figure:
        target = None if least is None else at_least(least, of="gateway")
        return Figure(name, "1/s", "", tuple(Pair(value) for value in values), target)

    return [
        line(f"device-sim load --rate {PACE}", [one.paced.per_second for one in rounds]),
        line("the same, for a second of processor", [one.paced.per_cpu_second for one in rounds], PACE),
        line("device-sim load --rate 0", [one.unpaced.per_second for one in rounds], PACE),
        line("the same, for a second of processor", [one.unpaced.per_cpu_second for one in rounds], PACE),
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
