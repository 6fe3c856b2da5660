"""Figures: the results of a measurement, and the summary of several rounds as one line of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True)
class Pair:
    """One figure of one round: the gateway's, and the floor's if there is one."""

    gateway: float
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return the gateway's figure divided by the floor's, or None where that is missing or 0."""
        return self.gateway / self.floor if self.floor else None


@dataclass(frozen=True)
class Target:
    """Target of a figure, for its ratio to the floor or for the gateway's figure itself."""

    bound: float
    least: bool
    of: Literal["ratio", "gateway"] = "ratio"

    def __str__(self) -> str:
        """Return the target with its sign; a ratio has no unit."""
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


def at_least(bound: float, of: Literal["ratio", "gateway"] = "ratio") -> Target:
    """Return a target where more is better."""
    return Target(bound, least=True, of=of)


def at_most(bound: float, of: Literal["ratio", "gateway"] = "ratio") -> Target:
    """Return a target where less is better."""
    return Target(bound, least=False, of=of)


@dataclass(frozen=True)
class Figure:
    """One line of the table: the same measurement of every round."""

    name: str
    unit: str
    floor_is: str
    rounds: tuple[Pair, ...]
    target: Target | None = None

    @property
    def gateway(self) -> float:
        """Return the gateway's median."""
        return median(pair.gateway for pair in self.rounds)

    @property
    def floor(self) -> float | None:
        """Return the floor's median."""
        return _median([pair.floor for pair in self.rounds])

    @property
    def ratio(self) -> float | None:
        """Return the median of the rounds' ratios. Both sides of a round were measured within seconds."""
        return _median([pair.ratio for pair in self.rounds])

    @property
    def share(self) -> tuple[float, float, float] | None:
        """Return the share of the target that is used: least, median and most of all rounds. Up to 1 it is met."""
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
    """Return the smallest value that is not exceeded by ``percent`` of all (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]
