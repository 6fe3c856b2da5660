"""Latency of a reset, from ``POST /v1/devices/{id}/reset`` to the connected device that receives the command.

Each reset concerns another device, one at a time. The floor is :mod:`bench.bare`. Both sides run at once and take turns
reset by reset, so that other programs on the machine affect both alike. Client, devices and clock are in this process,
the same for both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import wire
from bench.broker import HOST, Broker
from bench.caller import Caller, caller
from bench.figures import Figure, Pair, at_most, percentile
from bench.listener import Listener
from bench.process import HANGS_SECONDS, BenchError
from bench.registry import Registry
from bench.server import OK, Server, bare_stack, gateway_stack

WARM_UP: Final = 10
"""The first resets of a round, which are not counted."""

_PAUSE_SECONDS: Final = 0.01  # so that the work of one side after its answer does not count for the other
_PERCENTILES: Final = (50, 99)
_MS: Final = 1_000


@dataclass(frozen=True)
class Round:
    """Milliseconds from the request to the device, of each reset of one round."""

    gateway: tuple[float, ...]
    floor: tuple[float, ...]


class Device(Listener):
    """A device that waits for its reset; ``told`` is the instant when it received it."""

    def __init__(self, name: str, password: str) -> None:
        super().__init__(name, password)
        self.told: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def take(self, kind: int, body: bytes, now: float) -> None:
        """Record the instant when the last byte of the command had arrived."""
        if kind == wire.PUBLISH:
            self.transport.write(wire.puback(body))
            if not self.told.done():
                self.told.set_result(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the future that is waited for."""
        super().connection_lost(exc)
        self.tell(self.told, exc)

    def leave(self) -> None:
        """Disconnect."""
        self.told.cancel()
        super().leave()


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round: each side resets every device of the registry once, and the sides take turns.

    Raises:
        BenchError: a step failed.
    """
    async with (
        bare_stack(registry, folder / "floor") as floor,
        gateway_stack(registry, folder / "gateway") as subject,
        _side(registry, floor) as reset_floor,
        _side(registry, subject) as reset_gateway,
    ):
        taken = [(await reset_gateway(which), await reset_floor(which)) for which in range(len(registry.devices))]
    gateway_ms, floor_ms = zip(*taken[WARM_UP:], strict=True)
    return Round(gateway_ms, floor_ms)


def figures(rounds: list[Round], most: float) -> list[Figure]:
    """Return the lines of the table; ``most`` is the ratio to reach."""
    return [
        Figure(
            f"reset until the device has it, p{percent}",
            "ms",
            "bare handler",
            tuple(Pair(percentile(one.gateway, percent), percentile(one.floor, percent)) for one in rounds),
            at_most(most),
        )
        for percent in _PERCENTILES
    ]


def sides(rounds: list[Round]) -> dict[str, list[float]]:
    """Return the milliseconds of all rounds, for a plot."""
    return {
        "gateway": [taken for one in rounds for taken in one.gateway],
        "bare handler": [taken for one in rounds for taken in one.floor],
    }


@asynccontextmanager
async def _side(registry: Registry, server: Server) -> AsyncIterator[Callable[[int], Awaitable[float]]]:
    """Yield a function that resets the device with this number and returns the time it took."""
    assert server.broker, "both sides run beside Mosquitto"
    async with _connected(registry, server.broker) as devices, caller(server.port, registry.api_key) as http:
        yield lambda which: _reset(http, devices[which])


async def _reset(http: Caller, device: Device) -> float:
    """Return the milliseconds until the device received it. The HTTP answer is also awaited."""
    await asyncio.sleep(_PAUSE_SECONDS)
    began = time.perf_counter()
    status = await http.call("POST", f"/v1/devices/{device.name}/reset")
    if status != OK:
        raise BenchError(f"a reset was answered with {status}")
    async with asyncio.timeout(HANGS_SECONDS):
        return (await device.told - began) * _MS


@asynccontextmanager
async def _connected(registry: Registry, broker: Broker) -> AsyncIterator[list[Device]]:
    async with AsyncExitStack() as stack:
        devices = []
        for name, password in registry.devices:
            device = await _connect(broker, name, password)
            stack.callback(device.leave)
            devices.append(device)
        yield devices


async def _connect(broker: Broker, name: str, password: str) -> Device:
    loop = asyncio.get_running_loop()
    _, device = await loop.create_connection(lambda: Device(name, password), HOST, broker.port)
    await device.listens
    return device
