"""Ids of which the next are taken already, as if another process had minted them first."""

from gateway.core.ids import Ids
from gateway.core.randomness import system_entropy


class CollidingIds(Ids):
    """Mints those in ``taken`` first, each where its kind is asked for."""

    def __init__(self) -> None:
        super().__init__(system_entropy)
        self.taken: list[str] = []

    def new(self, prefix: str, now: int) -> str:
        """A taken id of this kind, if there is one left, or a new one."""
        for each in self.taken:
            if each.startswith(prefix):
                self.taken.remove(each)
                return each
        return super().new(prefix, now)
