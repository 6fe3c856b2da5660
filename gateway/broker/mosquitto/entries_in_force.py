"""Password entries that Mosquitto may have in force. They tell whom the next file would cut."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOST_KEPT: Final = 16
"""How many files in a row, not yet read by the broker, are remembered."""


class InForce:
    """User names and entries of the file that the broker has read, and of those written since."""

    def __init__(self, path: Path) -> None:
        """Begin with the file as it is found, before the gateway's first write."""
        self._files: list[Mapping[str, str]] = [_entries(path)]

    @property
    def sure(self) -> Mapping[str, str]:
        """Return what the broker read last."""
        return self._files[0]

    @property
    def newest(self) -> Mapping[str, str]:
        """Return what the file says now, whether the broker has read it or not."""
        return self._files[-1]

    def changed(self, wanted: Mapping[str, str]) -> set[str]:
        """Return the users whose session the broker would cut when it reads ``wanted``."""
        return {name for file in self._files for name, entry in file.items() if wanted.get(name) != entry}

    def written(self, wanted: Mapping[str, str]) -> None:
        """Note that the file says this now. The broker may read it at any moment."""
        if wanted != self._files[-1]:
            self._files.append(wanted)
            del self._files[1:-_MOST_KEPT]

    def taken_up(self) -> None:
        """Note that the broker has read what was written last."""
        self._files = self._files[-1:]


def _entries(path: Path) -> Mapping[str, str]:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return {name: entry for name, colon, entry in (line.partition(":") for line in lines) if colon}
    return {}
