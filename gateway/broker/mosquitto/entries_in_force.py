"""The password entries that Mosquitto may go by now, so that it is known whom the next file would cut."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_MOST_KEPT: Final = 16
"""How many files in a row that the broker has not taken up are remembered."""


class InForce:
    """User name and entry in the file that the broker has taken up, and in those written since."""

    def __init__(self, path: Path) -> None:
        """Before the first write of a gateway that is the file as it is found."""
        self._files: list[Mapping[str, str]] = [_entries(path)]

    @property
    def sure(self) -> Mapping[str, str]:
        """What the broker took up last."""
        return self._files[0]

    @property
    def newest(self) -> Mapping[str, str]:
        """What the file says now, whether the broker has taken it up or not."""
        return self._files[-1]

    def changed(self, wanted: Mapping[str, str]) -> set[str]:
        """The users whose session the broker would cut when it takes up ``wanted``."""
        return {name for file in self._files for name, entry in file.items() if wanted.get(name) != entry}

    def written(self, wanted: Mapping[str, str]) -> None:
        """This is in the file now, and the broker may take it up at any moment."""
        if wanted != self._files[-1]:
            self._files.append(wanted)
            del self._files[1:-_MOST_KEPT]

    def taken_up(self) -> None:
        """The broker goes by what was written last."""
        self._files = self._files[-1:]


def _entries(path: Path) -> Mapping[str, str]:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return {name: entry for name, colon, entry in (line.partition(":") for line in lines) if colon}
    return {}
