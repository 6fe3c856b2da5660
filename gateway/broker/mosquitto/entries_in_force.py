"""Password entries that Mosquitto may have in force. They tell whom the next file would cut."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.broker.mosquitto.password_lines import PasswordLines

_MOST_KEPT: Final = 16
"""How many files in a row, not yet read by the broker, are remembered."""


class InForce:
    """The file that the broker has read, and those written since. They are held open, not in memory."""

    def __init__(self, path: Path) -> None:
        """Begin with the file as it is found, before the gateway's first write."""
        self._files = [PasswordLines.of(path)]

    @property
    def sure(self) -> PasswordLines:
        """Return what the broker read last."""
        return self._files[0]

    @property
    def newest(self) -> PasswordLines:
        """Return what the file says now, whether the broker has read it or not."""
        return self._files[-1]

    def changed(self, wanted: PasswordLines) -> set[str]:
        """Return the users whose session the broker would cut when it reads ``wanted``."""
        return set().union(*(file.missing_in(wanted) for file in self._files))

    def written(self, wanted: PasswordLines) -> None:
        """Note that the file says this now. The broker may read it at any moment."""
        self._files.append(wanted)
        del self._files[1:-_MOST_KEPT]

    def taken_up(self) -> None:
        """Note that the broker has read what was written last."""
        self._files = self._files[-1:]
