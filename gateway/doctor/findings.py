"""Findings of the doctor: one per check, with the remedy where something is wrong."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Level(enum.IntEnum):
    """Severity of a finding. The worst one decides the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``details`` list what differs, a line each."""

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
        """Return a finding: all is well."""
        return Finding(self.name, name, Level.OK, says)

    def warning(self, name: str, says: str, remedy: str, *details: str) -> Finding:
        """Return a finding: it works now, but may not always."""
        return Finding(self.name, name, Level.WARNING, says, remedy, details)

    def error(self, name: str, says: str, remedy: str, *details: str) -> Finding:
        """Return a finding: it does not work."""
        return Finding(self.name, name, Level.ERROR, says, remedy, details)


def worst(findings: list[Finding]) -> Level:
    """Return the exit code."""
    return max((finding.level for finding in findings), default=Level.OK)
