"""Password entries that Mosquitto may have in force. They tell whom the next file would cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from gateway.broker.mosquitto.password_lines import PasswordLines, Stamp

_MOST_KEPT: Final = 16
"""How many files in a row, not yet read by the broker, are remembered."""


class InForce:
    """The file that the broker has read, and those written since. They are held open, not in memory."""

    def __init__(self, path: Path, known: Stamp | None = None) -> None:
        """Begin with the file as it is found, before the gateway's next write; ``known`` as for PasswordLines."""
        self._files = [PasswordLines.of(path, known)]
        self._edits: list[Collection[str] | None] = []

    @property
    def sure(self) -> PasswordLines:
        """Return what the broker read last."""
        return self._files[0]

    @property
    def newest(self) -> PasswordLines:
        """Return what the file says now, whether the broker has read it or not."""
        return self._files[-1]

    def changed(self, wanted: PasswordLines, edited: Collection[str] | None = None) -> set[str]:
        """Return the users whose session the broker would cut when it reads ``wanted``.

        ``edited``: the devices whose line differs from the newest file, where that is known. Without it, all lines are
        compared.
        """
        edits = [*self._edits, edited]
        known = [each for each in edits if each is not None]
        if len(known) < len(edits):
            return set().union(*(file.missing_in(wanted) for file in self._files))
        return set().union(*known, *(file.missing_accounts_in(wanted) for file in self._files))

    def outdated(self, good: Mapping[str, Collection[str]], accounts: Mapping[str, str]) -> set[str]:
        """Return whom the broker may still admit by an entry that is not good any more.

        ``good``: the good entries of some devices, by id. ``accounts``: the good entry of each account that is no
        device.
        """
        found = set[str]()
        for file in self._files:
            found |= {name for name, entry in file.entries_of(good).items() if entry not in good[name]}
            found |= {name for name, entry in file.accounts().items() if accounts.get(name) != entry}
        return found

    def written(self, wanted: PasswordLines, edited: Collection[str] | None = None) -> None:
        """Note that the file says this now. The broker may read it at any moment."""
        self._files.append(wanted)
        self._edits.append(edited)
        if len(self._files) > _MOST_KEPT + 1:
            del self._files[1:-_MOST_KEPT], self._edits[:-_MOST_KEPT]
            self._edits[0] = None  # from the first file to the second kept one

    def taken_up(self) -> None:
        """Note that the broker has read what was written last."""
        self._files, self._edits = self._files[-1:], []
