"""What goes wrong in a round, and when: drawn before it begins, from its seed."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.e2e.chaos_world import ChaosWorld
from tests.support.proxy import Proxy

LOAD_SECONDS = 4.0
FAULTS = 6


@dataclass(frozen=True)
class Fault:
    """One fault: at which second of the load, what, for how long, and on which line or device (a number, modulo)."""

    at: float
    name: str
    seconds: float
    number: int

    def __str__(self) -> str:
        return f"{self.name} for {self.seconds:.3f} s (number {self.number})"


class FaultInjector:
    """Does it. Faults overlap; those that start and stop the same process follow each other."""

    def __init__(self, world: ChaosWorld) -> None:
        self._world = world
        self._gateway, self._broker = asyncio.Lock(), asyncio.Lock()

    async def all_of(self, faults: list[Fault]) -> None:
        """Let each happen in its time; returns when all is over and both processes run."""
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                tasks.create_task(self._one(fault), name=str(fault))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)  # faults are what may depend on the clock
        self._world.log(str(fault))
        await DEEDS[fault.name](self, fault)

    async def kill_gateway(self, fault: Fault) -> None:
        """`kill -9`, and after a while a new start."""
        async with self._gateway:
            await self._world.kill_gateway()
            await asyncio.sleep(fault.seconds)
            await self._world.gateway.restart()

    async def kill_starting_gateway(self, fault: Fault) -> None:
        """`kill -9`, and another one in the middle of the new start."""
        async with self._gateway:
            await self._world.kill_gateway()
            await self._world.gateway.spawn()
            await asyncio.sleep(fault.seconds)
            await self._world.kill_gateway()
            await self._world.gateway.restart()

    async def stop_gateway(self, fault: Fault) -> None:
        """SIGTERM under load; it has to end well."""
        async with self._gateway:
            code = await self._world.gateway.stop()
            self._world.logs.append(self._world.gateway.err)
            assert code == 0, f"the gateway ended with {code}:\n{self._world.gateway.err}"
            await asyncio.sleep(fault.seconds)
            await self._world.gateway.restart()

    async def kill_broker(self, fault: Fault) -> None:
        """`kill -9`: it comes back with what it last saved."""
        async with self._broker:
            await self._world.broker.kill()
            await asyncio.sleep(fault.seconds)
            await self._world.broker.start()

    async def empty_broker(self, _: Fault) -> None:
        """It comes back without its disk."""
        async with self._broker:
            await self._world.broker.restart(forget_retained=True)

    async def stop_broker(self, fault: Fault) -> None:
        """SIGTERM: it saves everything."""
        async with self._broker:
            await self._world.broker.stop()
            await asyncio.sleep(fault.seconds)
            await self._world.broker.start()

    async def freeze_broker(self, fault: Fault) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        async with self._broker:
            os.kill(self._world.broker.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                os.kill(self._world.broker.pid, signal.SIGCONT)

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

    def _transport(self, fault: Fault) -> Proxy:
        lines = self._world.lines()
        return lines[fault.number % len(lines)]


DEEDS: Mapping[str, Callable[[FaultInjector, Fault], Awaitable[None]]] = {
    "kill_gateway": FaultInjector.kill_gateway,
    "kill_starting_gateway": FaultInjector.kill_starting_gateway,
    "stop_gateway": FaultInjector.stop_gateway,
    "kill_broker": FaultInjector.kill_broker,
    "empty_broker": FaultInjector.empty_broker,
    "stop_broker": FaultInjector.stop_broker,
    "freeze_broker": FaultInjector.freeze_broker,
    "cut": FaultInjector.cut,
    "halve": FaultInjector.halve,
    "stall": FaultInjector.stall,
    "delay": FaultInjector.delay,
    "turn_away": FaultInjector.turn_away,
    "cut_power": FaultInjector.cut_power,
}
_WEIGHTS = (6, 2, 1, 4, 1, 1, 2, 3, 3, 2, 2, 2, 3)
FORGETFUL = ("kill_broker", "empty_broker")


def drawn(rng: random.Random) -> list[Fault]:
    """The faults of a round; in half of the rounds the broker keeps what it has confirmed."""
    names = rng.choices(list(DEEDS), weights=_WEIGHTS, k=FAULTS)
    if rng.random() < 0.5:
        names = ["kill_gateway" if name in FORGETFUL else name for name in names]
    times = sorted(rng.uniform(0, LOAD_SECONDS) for _ in names)
    return [Fault(at, name, rng.uniform(0, 0.6), rng.randrange(1_000)) for at, name in zip(times, names, strict=True)]
