"""Sequence numbers: the last command of each type under a binding, so that no earlier one is executed after it."""

from collections.abc import Mapping
from typing import Any

from device_sim.actions import Action, Area, WriteFlash

SEQUENCES = "last_sequences"


class Sequences:
    """The last `seq` of each type, with the id of its command, under the binding of one generation.

    A reset keeps it. It names the generation, so a new binding starts empty without another write. It is written before
    the command is executed: after a power cut in between, the same id is accepted again.
    """

    def __init__(self, generation: int | None, kept: Mapping[str, Any]) -> None:
        stored = kept.get(SEQUENCES) or {}
        is_same_binding = generation is not None and stored.get("generation") == generation
        self._generation = generation
        self._last: dict[str, Any] = dict(stored["last"]) if is_same_binding else {}

    def is_allowed(self, command_type: str, seq: int, command_id: str) -> bool:
        """Return whether this command is later than the last one of its type, or is that one itself."""
        last = self._last.get(command_type)
        return last is None or seq > last["seq"] or (seq == last["seq"] and command_id == last["id"])

    def record(self, command_type: str, seq: int, command_id: str) -> list[Action]:
        """Record a command before it is executed. A repetition writes nothing, which saves flash."""
        entry = {"seq": seq, "id": command_id}
        if self._last.get(command_type) == entry:
            return []
        self._last = {**self._last, command_type: entry}
        return [WriteFlash(Area.KEPT, SEQUENCES, {"generation": self._generation, "last": self._last})]
