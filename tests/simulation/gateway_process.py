"""One run of the gateway's process, with seams at which it can be killed: around every await, commit and packet."""

import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.network import TcpConnection
from tests.simulation.virtual_loop import PausableProcess


class KilledError(BaseException):
    """The process is dead: nothing of it has any effect from here on. No handler of the gateway may catch this."""


class KillableProcess(PausableProcess):
    """``arm`` names the seam, and the how-manieth pass of it, at which the process dies; "any" counts all of them."""

    def __init__(self, rng: random.Random, slow: float, on_kill: Callable[[str], None]) -> None:
        super().__init__()
        self.is_dead = False
        self.passes: Counter[str] = Counter()
        self.connections: list[TcpConnection] = []
        self._rng = rng
        self._slow = slow
        self._on_kill = on_kill
        self._armed: dict[str, int] = {}

    def arm(self, seam: str, passes: int) -> None:
        """Die at the ``passes``-th pass of this seam from now on."""
        self._armed[seam] = passes

    def seam(self, name: str) -> None:
        """Pass here, or die here; raises KilledError for one that is dead."""
        if self.is_dead or not self._passes(name):
            raise KilledError(name)

    def was_killed(self) -> bool:
        """Whether something that was just done has killed it."""
        return self.is_dead

    def try_pass(self, name: str) -> bool:
        """The same where no code could catch it."""
        return not self.is_dead and self._passes(name)

    def _passes(self, name: str) -> bool:
        self.passes[name] += 1
        for armed in (name, "any"):
            left = self._armed.get(armed)
            if left is None:
                continue
            if left <= 1:
                self.kill(f"at the seam '{name}'")
                return False
            self._armed[armed] = left - 1
        return True

    def kill(self, where: str) -> None:
        """Be killed now."""
        if not self.is_dead:
            self.is_dead = True
            self._on_kill(where)
            self.resume()  # nothing of it has an effect any more

    def pause(self, what: str) -> float:
        """How long something takes, in seconds: mostly next to nothing."""
        if what == "read" and self._rng.random() < 0.7:
            return 0.0
        return 0.0005 + self._slow * float(self._rng.random() ** 3)
