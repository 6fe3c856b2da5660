"""Ids of which the next are taken already, as if another process had minted them first."""

from gateway.entropy import system_entropy
from gateway.ids import Ids


class TakenIds(Ids):
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
