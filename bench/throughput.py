"""Resets per second over 50 connections, each durable: from the first request to the last answer and last command.

The floor is :mod:`bench.bare`, with as many connections. Both sides run, and take turns of a few hundred resets each.
While one is measured, the other is idle. Every device is reset once. A reset counts when a subscriber at the broker has
received it: the floor answers after its publish, the gateway before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import wire
from bench.broker import HOST, WATCHER_USER, Broker
from bench.callers import Callers, callers, request
from bench.figures import Figure, Pair, at_least, percentile
from bench.process import HANGS_SECONDS, BenchError
from bench.registry import Registry
from bench.server import Server, bare_stack, gateway_stack

CONNECTIONS: Final = 50
WARM_UP: Final = 100
"""The first resets of a round, which are not counted."""

TURN: Final = 250
_TOPIC: Final = "devices/+/commands/factory_reset"
_PERCENTILES: Final = (50, 99)
_MS: Final = 1_000


@dataclass
class Side:
    """Results of one side in one round."""

    resets: int = 0
    seconds: float = 0.0
    answered_ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Return the resets per second."""
        return self.resets / self.seconds


@dataclass(frozen=True)
class Round:
    """Both sides of one round."""

    gateway: Side
    floor: Side


class Subscriber(asyncio.Protocol):
    """Counts the commands that the broker sends."""

    def __init__(self, broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        self.listens: asyncio.Future[None] = loop.create_future()
        self._password = broker.password
        self._buffer = bytearray()
        self._count = 0
        self._wanted: tuple[int, asyncio.Future[float]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT and SUBSCRIBE in one write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(wire.connect(WATCHER_USER, self._password) + wire.subscribe(_TOPIC))

    def data_received(self, data: bytes) -> None:
        """Count the commands, and complete the future at the expected number."""
        self._buffer += data
        while packet := wire.take_packet(self._buffer):
            kind, body = packet
            if kind == wire.SUBACK:
                self.listens.set_result(None)
            elif kind == wire.PUBLISH:
                self._count += 1
                self._transport.write(wire.puback(body))
        if self._wanted and self._count >= self._wanted[0] and not self._wanted[1].done():
            self._wanted[1].set_result(time.perf_counter())

    def more(self, count: int) -> asyncio.Future[float]:
        """Return a future with the instant (monotonic clock) when so many more have arrived."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._wanted = self._count + count, future
        return future

    def leave(self) -> None:
        """Disconnect."""
        self._transport.write(wire.DISCONNECT)
        self._transport.close()


async def measure(registry: Registry, folder: Path) -> Round:
    """Run one round: each side resets every device of the registry once.

    Raises:
        BenchError: a step failed.
    """
    names = [name for name, _ in registry.devices]
    turns = [names[start : start + TURN] for start in range(WARM_UP, len(names), TURN)]
    async with (
        bare_stack(registry, folder / "floor") as floor,
        gateway_stack(registry, folder / "gateway") as subject,
        _open(floor) as at_floor,
        _open(subject) as at_gateway,
    ):
        for each in (at_floor, at_gateway):
            await _take(*each, registry.api_key, names[:WARM_UP], Side())
        sides = Round(Side(), Side())
        for turn in turns:
            await _take(*at_floor, registry.api_key, turn, sides.floor)
            await _take(*at_gateway, registry.api_key, turn, sides.gateway)
    return sides


def figures(rounds: list[Round], least: float) -> list[Figure]:
    """Return the lines of the table; ``least`` is the ratio to reach."""
    rates = tuple(Pair(one.gateway.per_second, one.floor.per_second) for one in rounds)
    return [
        Figure(f"resets over {CONNECTIONS} connections", "1/s", "bare handler", rates, at_least(least)),
        *(
            Figure(f"until their answers, p{percent}", "ms", "bare handler", _answered(rounds, percent))
            for percent in _PERCENTILES
        ),
    ]


def _answered(rounds: list[Round], percent: float) -> tuple[Pair, ...]:
    return tuple(
        Pair(percentile(one.gateway.answered_ms, percent), percentile(one.floor.answered_ms, percent)) for one in rounds
    )


@asynccontextmanager
async def _open(server: Server) -> AsyncIterator[tuple[Callers, Subscriber]]:
    assert server.broker, "both sides run beside Mosquitto"
    broker, loop = server.broker, asyncio.get_running_loop()
    _, subscriber = await loop.create_connection(lambda: Subscriber(broker), HOST, broker.port)
    await subscriber.listens
    async with callers(server.port, CONNECTIONS) as opened:
        yield opened, subscriber
    subscriber.leave()


async def _take(http: Callers, subscriber: Subscriber, api_key: str, names: list[str], side: Side) -> None:
    told = subscriber.more(len(names))
    answered = await http.call([request("POST", f"/v1/devices/{name}/reset", api_key) for name in names])
    try:
        async with asyncio.timeout(HANGS_SECONDS):
            last = await told
    except TimeoutError:
        raise BenchError("every reset was answered, and not every command came to the broker") from None
    side.resets += len(names)
    side.seconds += max(answered.ended, last) - answered.began
    side.answered_ms += [seconds * _MS for seconds in answered.seconds]
