"""Memory of an idle ``gateway serve`` with 1,000 devices, beside Mosquitto and with the embedded broker.

The floor is the bare handler of :mod:`bench.bare`: Python with the same web server, SQLite and MQTT client.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure, Pair, at_most
from bench.registry import Registry
from bench.server import Server, bare_stack, gateway, gateway_stack

_REST_SECONDS: Final = 1.0
_FLOOR: Final = "bare handler"
MOST: Final = 1.35
"""Memory of the gateway, of that of the bare handler, which has the same Python and libraries."""


@dataclass(frozen=True)
class Round:
    """Resident memory in megabytes."""

    beside_mosquitto: float
    embedded: float
    floor: float


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round of each.

    Raises:
        BenchError: a step failed.
    """
    async with bare_stack(registry, folder / "bare") as server:
        floor = await _at_rest(server)
    async with gateway_stack(registry, folder / "beside") as server:
        beside = await _at_rest(server)
    async with gateway(registry.copy(folder / "embedded").data_dir, None) as server:
        return Round(beside, await _at_rest(server), floor)


def figures(rounds: list[Round]) -> list[Figure]:
    """Return the lines of the table."""
    beside = tuple(Pair(one.beside_mosquitto, one.floor) for one in rounds)
    embedded = tuple(Pair(one.embedded, one.floor) for one in rounds)
    return [
        Figure("memory at rest, beside Mosquitto", "MB", _FLOOR, beside, at_most(MOST)),
        Figure("memory at rest, embedded broker", "MB", _FLOOR, embedded, at_most(MOST)),
    ]


async def _at_rest(server: Server) -> float:
    await asyncio.sleep(_REST_SECONDS)
    return server.process.resident_megabytes()
