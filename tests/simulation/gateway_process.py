"""One life of the gateway's process, with seams at which it can be killed: around every await, commit and packet."""

import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.network import Line


class KilledError(BaseException):
    """The process is dead: nothing of it has any effect from here on. No handler of the gateway may catch this."""


class Process:
    """``arm`` names the seam, and the how-manieth pass of it, at which the process dies; "any" counts all of them."""

    def __init__(self, rng: random.Random, slow: float, on_death: Callable[[str], None]) -> None:
        self.dead = False
        self.passes: Counter[str] = Counter()
        self.lines: list[Line] = []
        self._rng = rng
        self._slow = slow
        self._on_death = on_death
        self._armed: dict[str, int] = {}

    def arm(self, seam: str, passes: int) -> None:
        """Die at the ``passes``-th pass of this seam from now on."""
        self._armed[seam] = passes

    def seam(self, name: str) -> None:
        """Pass here, or die here; raises KilledError for one that is dead."""
        if self.dead or not self._passes(name):
            raise KilledError(name)

    def died(self) -> bool:
        """Whether something that was just done has killed it."""
        return self.dead

    def survives(self, name: str) -> bool:
        """The same where no code could catch it."""
        return not self.dead and self._passes(name)

    def _passes(self, name: str) -> bool:
        self.passes[name] += 1
        for armed in (name, "any"):
            left = self._armed.get(armed)
            if left is None:
                continue
            if left <= 1:
                self.die(f"at the seam '{name}'")
                return False
            self._armed[armed] = left - 1
        return True

    def die(self, where: str) -> None:
        """Be killed now."""
        if not self.dead:
            self.dead = True
            self._on_death(where)

    def pause(self, what: str) -> float:
        """How long something takes, in seconds: mostly next to nothing."""
        if what == "read" and self._rng.random() < 0.7:
            return 0.0
        return 0.0005 + self._slow * float(self._rng.random() ** 3)
