"""What a measurement leaves behind, and how several rounds of it become one line of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Pair:
    """One figure of one round: the gateway's, and the floor's where there is one."""

    gateway: float
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor the gateway's figure is."""
        return None if self.floor is None else self.gateway / self.floor


@dataclass(frozen=True)
class Target:
    """What is to be reached, by the ratio to the floor or by the gateway's figure itself."""

    bound: float
    least: bool
    of: Literal["ratio", "gateway"] = "ratio"

    def __str__(self) -> str:
        """With a sign; of a ratio without a unit."""
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


def at_least(bound: float, of: Literal["ratio", "gateway"] = "ratio") -> Target:
    """More is better."""
    return Target(bound, least=True, of=of)


def at_most(bound: float, of: Literal["ratio", "gateway"] = "ratio") -> Target:
    """Less is better."""
    return Target(bound, least=False, of=of)


@dataclass(frozen=True)
class Figure:
    """One line of the table: the same thing measured in every round."""

    name: str
    unit: str
    floor_is: str
    rounds: tuple[Pair, ...]
    target: Target | None = None

    @property
    def gateway(self) -> float:
        """The gateway's median."""
        return median(pair.gateway for pair in self.rounds)

    @property
    def floor(self) -> float | None:
        """The floor's median."""
        return _median([pair.floor for pair in self.rounds])

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios: both sides of each were measured within seconds of each other."""
        return _median([pair.ratio for pair in self.rounds])

    @property
    def share(self) -> tuple[float, float, float] | None:
        """How much of what is allowed is used, of all rounds the least, the median and the most; up to 1 is good."""
        if self.target is None:
            return None
        values = [pair.ratio if self.target.of == "ratio" else pair.gateway for pair in self.rounds]
        used = sorted(self._used(self.target, value) for value in values if value)
        return (used[0], median(used), used[-1]) if used else None

    @staticmethod
    def _used(target: Target, value: float) -> float:
        return target.bound / value if target.least else value / target.bound


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return median(there) if there else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that is not exceeded by ``percent`` of all (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
