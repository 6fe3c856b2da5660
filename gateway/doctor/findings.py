"""What the doctor says: one finding per thing looked at, with what to do where something is wrong."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Level(enum.IntEnum):
    """How bad it is; the worst decides the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``details`` name what differs, a line each."""

    area: str
    name: str
    level: Level
    says: str
    remedy: str | None = None
    details: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Area:
    """Makes the findings of one area."""

    name: str

    def ok(self, name: str, says: str) -> Finding:
        """It is as it should be."""
        return Finding(self.name, name, Level.OK, says)

    def warning(self, name: str, says: str, remedy: str, *details: str) -> Finding:
        """It works, and will not always."""
        return Finding(self.name, name, Level.WARNING, says, remedy, details)

    def error(self, name: str, says: str, remedy: str, *details: str) -> Finding:
        """It does not work."""
        return Finding(self.name, name, Level.ERROR, says, remedy, details)


def worst(findings: list[Finding]) -> Level:
    """The exit status."""
    return max((finding.level for finding in findings), default=Level.OK)
