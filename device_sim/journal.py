"""Journal of the newest commands and their outcomes. A reset keeps it, so that no command is executed twice."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from device_sim.actions import AckStatus, Publish
from device_sim.binding import Binding
from device_sim.wire import Command, acknowledgement, receipt

MAX_OUTCOMES = 16


@dataclass(frozen=True)
class Outcome:
    """Final outcome of one command, repeated whenever the command is delivered again."""

    command_id: str
    type: str
    status: AckStatus
    receipt: str
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None

    @classmethod
    def of(cls, command: Command, status: AckStatus, binding: Binding) -> Self:
        """Return an outcome of a command, with the receipt of the binding's token."""
        signed = receipt(binding.device_token, command.id, status, command.binding_generation)
        return cls(command.id, command.type, status, signed)

    def to_flash(self) -> dict[str, Any]:
        """Return its form in the flash."""
        return asdict(self)

    def acknowledge(self) -> Publish:
        """Return the acknowledgement, with the same bytes each time."""
        payload = acknowledgement(
            self.command_id, self.status, receipt=self.receipt, result=self.result, error=self.error
        )
        return Publish("ack", payload, self.command_id, self.type, self.status)


class Journal:
    """The newest `MAX_OUTCOMES` outcomes, oldest first, and the last executed command of each type, however old.

    `device_sim.sequences` accepts the sequence of that last command again, so its id must not be forgotten.
    """

    def __init__(self, outcomes: Iterable[Mapping[str, Any]] = ()) -> None:
        self._outcomes = _bounded([Outcome(**each) for each in outcomes])

    def find(self, command_id: str, command_type: str) -> Outcome | None:
        """Return the outcome of a command, or None when it is unknown or forgotten."""
        for each in self._outcomes:
            if (each.command_id, each.type) == (command_id, command_type):
                return each
        return None

    def add(self, outcome: Outcome) -> None:
        """Add an outcome and drop the oldest. An entry with the same id is replaced."""
        others = [each for each in self._outcomes if each.command_id != outcome.command_id]
        self._outcomes = _bounded([*others, outcome])

    def to_flash(self) -> list[dict[str, Any]]:
        """Return its form in the flash."""
        return [each.to_flash() for each in self._outcomes]


def _bounded(outcomes: list[Outcome]) -> list[Outcome]:
    last_done = {each.type: each.command_id for each in outcomes if each.status == "executed"}
    oldest = len(outcomes) - MAX_OUTCOMES
    return [each for at, each in enumerate(outcomes) if at >= oldest or last_done.get(each.type) == each.command_id]
