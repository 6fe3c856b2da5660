"""What goes wrong in a round, and when: drawn before it begins, from its seed."""

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from tests.e2e.chaos_world import ChaosWorld
from tests.e2e.gateway_process import GatewayProcess
from tests.support.mosquitto import Mosquitto
from tests.support.proxy import Proxy

LOAD_SECONDS = 4.0
FAULTS = 6

Process = TypeVar("Process")


@dataclass(frozen=True)
class Fault:
    """One fault: at which second of the load, what, for how long, and on which line or device (a number, modulo)."""

    at: float
    name: str
    seconds: float
    number: int

    def __str__(self) -> str:
        return f"{self.name} for {self.seconds:.3f} s (number {self.number})"


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """SIGSTOP, and SIGCONT at the end of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class FaultInjector:
    """Does it. Faults overlap; those that start and stop the same process follow each other."""

    def __init__(self, world: ChaosWorld) -> None:
        self._world = world
        self._busy: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def all_of(self, faults: list[Fault]) -> None:
        """Let each happen in its time; returns when all is over and both processes run."""
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                tasks.create_task(self._one(fault), name=str(fault))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)  # faults are what may depend on the clock
        self._world.log(str(fault))
        deed: Callable[[Fault], Awaitable[None]] = getattr(self, fault.name)
        await deed(fault)

    async def kill_gateway(self, fault: Fault) -> None:
        """`kill -9`, and after a while a new start."""
        async with self.alone_with(self.gateway_of(fault)) as gateway:
            await self._world.kill(gateway)
            await asyncio.sleep(fault.seconds)
            await self.restart(gateway)

    async def kill_starting_gateway(self, fault: Fault) -> None:
        """`kill -9`, and another one in the middle of the new start."""
        async with self.alone_with(self.gateway_of(fault)) as gateway:
            await self._world.kill(gateway)
            await gateway.spawn()
            await asyncio.sleep(fault.seconds)
            await self._world.kill(gateway)
            await self.restart(gateway)

    async def stop_gateway(self, fault: Fault) -> None:
        """SIGTERM under load; it has to end well."""
        async with self.alone_with(self.gateway_of(fault)) as gateway:
            code = await gateway.stop()
            self._world.logs.append(gateway.err)
            assert code == 0, f"the gateway ended with {code}:\n{gateway.err}"
            await asyncio.sleep(fault.seconds)
            await self.restart(gateway)

    async def kill_broker(self, fault: Fault) -> None:
        """`kill -9`: it comes back with what it last saved."""
        async with self.alone_with(self._broker(fault)) as broker:
            await broker.kill()
            await asyncio.sleep(fault.seconds)
            await broker.start()

    async def empty_broker(self, fault: Fault) -> None:
        """It comes back without its disk."""
        async with self.alone_with(self._broker(fault)) as broker:
            await broker.restart(forget_retained=True)

    async def stop_broker(self, fault: Fault) -> None:
        """SIGTERM: it saves everything."""
        async with self.alone_with(self._broker(fault)) as broker:
            await broker.stop()
            await asyncio.sleep(fault.seconds)
            await broker.start()

    async def freeze_broker(self, fault: Fault) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        async with self.alone_with(self._broker(fault)) as broker, frozen(broker.pid):
            await asyncio.sleep(fault.seconds)

    async def cut(self, fault: Fault) -> None:
        """Every connection over a line is cut."""
        self._transport(fault).cut()

    async def halve(self, fault: Fault) -> None:
        """Half of the next packet passes, then its connection is cut."""
        self._transport(fault).halve()

    async def stall(self, fault: Fault) -> None:
        """Nothing passes for a while."""
        line = self._transport(fault)
        line.stall()
        await asyncio.sleep(fault.seconds)
        line.resume()

    async def delay(self, fault: Fault) -> None:
        """Everything takes longer for a while."""
        line = self._transport(fault)
        line.delay_seconds = fault.seconds / 20
        await asyncio.sleep(fault.seconds)
        line.delay_seconds = 0.0

    async def turn_away(self, fault: Fault) -> None:
        """Who connects over a line is cut off at once, for a while."""
        line = self._transport(fault)
        line.closed = True
        line.cut()
        await asyncio.sleep(fault.seconds)
        line.closed = False

    async def cut_power(self, fault: Fault) -> None:
        """A device loses its power, wherever it is."""
        devices = self._world.troubled
        await devices[fault.number % len(devices)].cut_power()

    async def restart(self, gateway: GatewayProcess) -> None:
        """Start a gateway after its end."""
        await gateway.restart()

    @asynccontextmanager
    async def alone_with(self, process: Process) -> AsyncIterator[Process]:
        """Let no other fault start or stop this one during the block."""
        async with self._busy[id(process)]:
            yield process

    def gateway_of(self, fault: Fault) -> GatewayProcess:
        """The gateway that a fault concerns."""
        return self._world.members[fault.number % len(self._world.members)].gateway

    def _broker(self, fault: Fault) -> Mosquitto:
        return self._world.cells[fault.number % len(self._world.cells)].broker

    def _transport(self, fault: Fault) -> Proxy:
        lines = self._world.lines()
        return lines[fault.number % len(lines)]


WEIGHTS: Mapping[str, int] = {
    "kill_gateway": 6,
    "kill_starting_gateway": 2,
    "stop_gateway": 1,
    "kill_broker": 4,
    "empty_broker": 1,
    "stop_broker": 1,
    "freeze_broker": 2,
    "cut": 3,
    "halve": 3,
    "stall": 2,
    "delay": 2,
    "turn_away": 2,
    "cut_power": 3,
}
"""The methods of the injector, and how often each is drawn."""
FORGETFUL = ("kill_broker", "empty_broker")


def drawn(rng: random.Random) -> list[Fault]:
    """The faults of a round; in half of the rounds the broker keeps what it has confirmed."""
    names = rng.choices(list(WEIGHTS), weights=tuple(WEIGHTS.values()), k=FAULTS)
    if rng.random() < 0.5:
        names = ["kill_gateway" if name in FORGETFUL else name for name in names]
    return spread(rng, names, LOAD_SECONDS)


def spread(rng: random.Random, names: list[str], seconds: float) -> list[Fault]:
    """These faults, over so many seconds."""
    times = sorted(rng.uniform(0, seconds) for _ in names)
    return [Fault(at, name, rng.uniform(0, 0.6), rng.randrange(1_000)) for at, name in zip(times, names, strict=True)]
