"""What goes wrong, from a seed: power cuts at named steps, lost, doubled and late messages, links that flap."""

import random
from collections.abc import Iterable
from typing import Literal, Protocol

from device_sim.actions import Action
from device_sim.errors import PowerCutError
from device_sim.facts import step

Direction = Literal["incoming", "outgoing"]
ONCE_NOW = (0.0,)


class Faults(Protocol):
    """Asked by the runtime; whoever answers decides what goes wrong."""

    def before(self, action: Action) -> None:
        """Raise `PowerCutError` if the power is to go before this action."""

    def copies(self, direction: Direction) -> tuple[float, ...]:
        """Return the delay in seconds of each copy of a message; no copy at all means that it is lost."""

    def link_lifetime(self) -> float | None:
        """Return after how many seconds the link that came up now is broken; None for never."""


class NoFaults:
    """Nothing goes wrong."""

    def before(self, action: Action) -> None:
        """The power stays."""

    def copies(self, direction: Direction) -> tuple[float, ...]:  # noqa: ARG002  # the protocol's name
        """Every message arrives once, at once."""
        return ONCE_NOW

    def link_lifetime(self) -> float | None:
        """The link stays."""
        return None


class SeededFaults:
    """Faults that come again in the same order from the same `rng`.

    `power_cuts` names steps (see `facts.step`); each entry strikes once, before that step. `drop` and `duplicate` are
    probabilities per message, `delay` bounds how late one arrives (seconds), `flap` how long a link lives (seconds).
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

    def copies(self, direction: Direction) -> tuple[float, ...]:  # noqa: ARG002  # both ways go wrong alike
        """Lose, double or delay a message."""
        if self._rng.random() < self._drop:
            return ()
        count = 2 if self._rng.random() < self._duplicate else 1
        return tuple(self._rng.uniform(*self._delay) for _ in range(count))

    def link_lifetime(self) -> float | None:
        """Say how long this link lives."""
        return None if self._flap is None else self._rng.uniform(*self._flap)
