"""Faults from a seed: power cuts at named steps, lost, duplicated and late messages, links that flap."""

import random
from collections.abc import Iterable
from typing import Literal, Protocol

from device_sim.actions import Action
from device_sim.errors import PowerCutError
from device_sim.facts import step

Direction = Literal["incoming", "outgoing"]
ONCE_NOW = (0.0,)


class Faults(Protocol):
    """Decides what goes wrong. The runtime calls it before each action, for each message and for each link."""

    def before(self, action: Action) -> None:
        """Raise `PowerCutError` to cut the power before this action."""

    def copies(self, direction: Direction) -> tuple[float, ...]:
        """Return the delay in seconds of each copy of a message; without a copy it is lost."""

    def link_lifetime(self) -> float | None:
        """Return after how many seconds this new link breaks; None for never."""


class NoFaults:
    """No faults."""

    def before(self, action: Action) -> None:
        """Never cut the power."""

    def copies(self, direction: Direction) -> tuple[float, ...]:  # noqa: ARG002  # the protocol's name
        """Return one copy without delay."""
        return ONCE_NOW

    def link_lifetime(self) -> float | None:
        """Return None: the link never breaks."""
        return None


class SeededFaults:
    """Faults that follow from `rng` alone, so that a run can be repeated.

    `power_cuts` names steps (see `facts.step`). Each entry cuts the power once, before that step. `drop` and
    `duplicate` are probabilities per message. `delay` limits how late a message arrives, `flap` how long a link is up,
    both in seconds.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        power_cuts: Iterable[str] = (),
        drop: float = 0.0,
        duplicate: float = 0.0,
        delay: tuple[float, float] = (0.0, 0.0),
        flap: tuple[float, float] | None = None,
    ) -> None:
        self._rng = rng
        self._power_cuts = list(power_cuts)
        self._drop = drop
        self._duplicate = duplicate
        self._delay = delay
        self._flap = flap

    def before(self, action: Action) -> None:
        """Cut the power before a step that is on the list, and take it off the list."""
        name = step(action)
        if name in self._power_cuts:
            self._power_cuts.remove(name)
            raise PowerCutError(name)

    def copies(self, direction: Direction) -> tuple[float, ...]:  # noqa: ARG002  # the same faults in both directions
        """Return the delays of the copies of a message, which may be lost, duplicated or late."""
        if self._rng.random() < self._drop:
            return ()
        count = 2 if self._rng.random() < self._duplicate else 1
        return tuple(self._rng.uniform(*self._delay) for _ in range(count))

    def link_lifetime(self) -> float | None:
        """Return after how many seconds this link breaks."""
        return None if self._flap is None else self._rng.uniform(*self._flap)
