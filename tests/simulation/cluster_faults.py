"""Faults of gateways that share a registry: paused, cut off from broker or registry, with a clock that is off."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.simulation.cluster_host import ClusterHost
from tests.simulation.faults import FaultInjector

_LOOK_SECONDS: Final = 0.1
_LOOKS: Final = 30


class ClusterFaults(FaultInjector):
    """Each method is a kind of step. ``gateway`` is a number, "owner", or "fleet"."""

    def _gateway(self, gateway: str | int) -> ClusterHost:
        host = self._host(gateway)
        assert isinstance(host, ClusterHost)
        return host

    async def pause(self, *, gateway: str | int, point: str, passes: int, seconds: float) -> None:
        """SIGSTOP at the so-manieth pass of a point from now, or after 3 s wherever it is; SIGCONT later."""
        host = self._gateway(gateway)
        instance = host.instance
        if instance is None or instance.process.is_paused:
            return
        process, paused = instance.process, asyncio.Event()
        process.pause_at(point, passes, paused.set)
        for _ in range(_LOOKS):
            if paused.is_set() or process.is_dead:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        process.freeze()
        host.mark_trouble()
        self._world.mark_disturbance()
        self._world.log(host.name, "stands still", seconds=seconds, at=point if paused.is_set() else "")
        await asyncio.sleep(seconds)
        self._world.log(host.name, "goes on")
        process.resume()
        host.mark_trouble()

    async def stall(self, *, who: str | int, seconds: float) -> None:
        """Hold back what is sent from now on: nothing is put right at the broker until it arrives."""
        stalling = asyncio.create_task(super().stall(who=who, seconds=seconds))
        while not stalling.done() and self._world.gateways:
            self._world.mark_disturbance()
            await asyncio.wait((stalling,), timeout=_LOOK_SECONDS)
        await stalling

    async def leave_broker(self, *, gateway: str | int, seconds: float, far_after: float) -> None:
        """Cut a gateway off from the broker for a while; the broker may notice later."""
        host = self._gateway(gateway)
        host.is_away_from_broker = True
        host.mark_trouble()
        self._world.log(host.name, "is cut off from the broker", seconds=seconds)
        for connection in [] if host.instance is None else host.instance.process.connections:
            connection.cut("a cable was pulled", far_after=far_after)
        await asyncio.sleep(seconds)
        host.is_away_from_broker = False
        host.mark_trouble()

    async def leave_registry(self, *, gateway: str | int, seconds: float, loses_answer: bool) -> None:
        """Cut a gateway off from the registry for a while, at once or in the middle of a commit."""
        host = self._gateway(gateway)
        host.line.loses_answer = loses_answer
        for _ in range(_LOOKS if loses_answer else 0):
            await asyncio.sleep(_LOOK_SECONDS)
            if host.line.is_cut:
                break
        host.line.loses_answer, host.line.is_cut = False, True
        host.mark_trouble()
        self._world.mark_disturbance()
        self._world.log(host.name, "is cut off from the registry", seconds=seconds)
        await asyncio.sleep(seconds)
        host.line.is_cut = False
        host.mark_trouble()
        self._world.log(host.name, "reaches the registry again")

    async def set_clock(self, *, gateway: str | int, ms: int) -> None:
        """Set the clock of one gateway."""
        host = self._gateway(gateway)
        host.ahead_ms += ms
        self._world.log(host.name, "has its clock set", by_ms=ms)
