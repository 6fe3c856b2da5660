"""Which command of each type was taken last under a binding, so that no earlier one is obeyed after it."""

from collections.abc import Mapping
from typing import Any

from device_sim.actions import Action, Area, WriteFlash

SEQUENCES = "last_sequences"


class Sequences:
    """The last `seq` of each type, with the id of its command, under the binding of one generation.

    It lies outside what a reset wipes and names the generation, so that another binding begins from nothing without
    another write. It is written before the command is obeyed: when the power goes in between, the same id passes again.
    """

    def __init__(self, generation: int | None, kept: Mapping[str, Any]) -> None:
        stored = kept.get(SEQUENCES) or {}
        fits = generation is not None and stored.get("generation") == generation
        self._generation = generation
        self._last: dict[str, Any] = dict(stored["last"]) if fits else {}

    def allow(self, command_type: str, seq: int, command_id: str) -> bool:
        """Return whether this is a later command than the last one of its type, or that one itself."""
        last = self._last.get(command_type)
        return last is None or seq > last["seq"] or (seq == last["seq"] and command_id == last["id"])

    def take(self, command_type: str, seq: int, command_id: str) -> list[Action]:
        """Remember a command that is about to be obeyed; one that comes again wears no flash."""
        taken = {"seq": seq, "id": command_id}
        if self._last.get(command_type) == taken:
            return []
        self._last = {**self._last, command_type: taken}
        return [WriteFlash(Area.KEPT, SEQUENCES, {"generation": self._generation, "last": self._last})]
