"""How much is measured: numbers of rounds, calls, devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bench.large import bound_of
from bench.process import BenchError

WITNESSES: Final = 2
"""Clients that do nothing but wait for answers to their pings."""


@dataclass(frozen=True)
class Plan:
    """Numbers of a run. Those of calls, resets, binds and revocations are for each round and size."""

    rounds: int = 3
    calls: int = 100
    """How often each call is made."""
    rest_seconds: float = 30.0
    senders: int = 500
    each: int = 100
    """Heartbeats of each sender. The broker queues no more than 100,000 for the gateway."""
    resets: int = 50
    binds: int = 2
    revocations: int = 2
    burst_seconds: int = 20
    burst_per_second: int = 10
    history: int = 5
    """Heartbeats of each device that are there before anything is measured."""

    @property
    def members(self) -> int:
        """Return how many devices with a known password a registry needs."""
        return self.senders + self._others

    @property
    def _others(self) -> int:
        """Return how many are needed beside the senders. A device is reset or revoked once."""
        return WITNESSES + self.rounds * (self.resets + 2 * self.revocations) + self.burst_seconds

    def fitting(self, size: int) -> Plan:
        """Return the plan for registries of which the smallest has this size: all have as many members.

        Raises:
            BenchError: so few devices are too few.
        """
        if bound_of(size) <= self._others:
            raise BenchError(f"{size} devices are too few: the plan needs more than {self._others} bound ones")
        return replace(self, senders=min(self.senders, bound_of(size) - self._others))
