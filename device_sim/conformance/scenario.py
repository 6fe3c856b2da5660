"""Scenario: a few steps with the device that show some lines of the checklist."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from device_sim.conformance.kit import Kit


@dataclass(frozen=True)
class Scenario:
    """`run` sets `kit.line` before each step: a step that fails is a finding of that line.

    Before a scenario the device is brought online, unless `begins_online` is False. `needs` names the scenario whose
    end is the beginning of this one.
    """

    name: str
    lines: tuple[str, ...]
    run: Callable[[Kit], Awaitable[None]]
    begins_online: bool = True
    needs: str | None = None
