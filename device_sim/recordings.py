"""Recordings on the flash, each labelled with the binding generation in which it was made (section 7)."""

from collections.abc import Mapping
from typing import Any

from device_sim.actions import Action, Area, EraseFlash, Upload, WriteFlash
from device_sim.binding import Binding
from device_sim.wire import Command

RECORDINGS = "recordings"


class Recordings:
    """The recordings: the generation of each, by its id. A reset keeps or wipes them, as its params say.

    A recording is uploaded only under a binding of its own generation. After a reset there is no such binding any
    more, so what a reset kept stays on the device until a later reset wipes it.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._made_in: dict[str, int] = dict(kept.get(RECORDINGS) or {})
        self._running: str | None = None  # a power cut ends a recording: what it has until then stays

    def count(self) -> int:
        """Return the number of recordings of all generations; one that is being made counts."""
        return len(self._made_in)

    def report(self, generation: int) -> dict[str, Any]:
        """Return what a heartbeat under a binding of this generation says about recordings."""
        return {"is_recording": self._running is not None, "pending_recordings": len(self._waiting(generation))}

    def make(self, number: int, generation: int) -> list[Action]:
        """Make so many finished recordings under a binding of this generation. Repeated, it adds nothing."""
        self._made_in |= {f"rec_{generation}_{each:03d}": generation for each in range(number)}
        return [self._write()] if number else []

    def wipe(self) -> list[Action]:
        """Wipe all recordings. Without this, the next write to flash would bring them back from RAM."""
        self._made_in, self._running = {}, None
        return [EraseFlash(Area.KEPT, RECORDINGS)]

    def execute(self, command: Command, binding: Binding) -> tuple[dict[str, Any], list[Action]]:
        """Execute a command about recordings. Return its result, and the actions that come before it is stored.

        Raises:
            ValueError: the command is not about recordings.
        """
        match command.type:
            case "start_recording":
                return {"recording": True}, self._start(command.id, binding.generation)
            case "stop_recording":
                self._running = None
                return {"recording": False, "pending_recordings": len(self._waiting(binding.generation))}, []
            case "trigger_upload":
                waiting = self._waiting(binding.generation)
                return {"uploaded": len(waiting)}, self._upload(waiting, binding)
            case _:
                raise ValueError(f"{command.type!r} is not about recordings")

    def _start(self, recording_id: str, generation: int) -> list[Action]:
        """Begin a recording under the id of its command. So the same command, after a power cut, begins no second."""
        if self._running is not None:
            return []
        self._running = recording_id
        self._made_in[recording_id] = generation
        return [self._write()]

    def _upload(self, waiting: list[str], binding: Binding) -> list[Action]:
        """Upload what this binding may, then forget it. A power cut in between has it uploaded again."""
        uploads = [Upload(each, self._made_in.pop(each), binding) for each in waiting]
        return [*uploads, self._write()] if uploads else []

    def _waiting(self, generation: int) -> list[str]:
        return sorted(
            each for each, made_in in self._made_in.items() if made_in == generation and each != self._running
        )

    def _write(self) -> Action:
        return WriteFlash(Area.KEPT, RECORDINGS, dict(self._made_in))
