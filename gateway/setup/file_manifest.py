"""Manifest of written files: it tells which have been changed since, so that no change is overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, Literal

from gateway.errors import UnavailableError
from gateway.runtime.owned_files import Owner, own, read, replace

NAME: Final = ".broker-init.json"
State = Literal["written", "unchanged", "updated", "kept", "replaced"]
"""New; unchanged; ours and updated; changed by a person and kept; changed, and overwritten by force."""


class FileManifest:
    """What was written into ``directory`` before: a digest by file name, and the options."""

    def __init__(self, directory: Path, *, force: bool) -> None:
        """Read it.

        Raises:
            UnavailableError: it exists and cannot be read.
        """
        self._file = directory / NAME
        self._directory = directory
        self._force = force
        self.states: dict[str, State] = {}
        record = self._read()
        self.options: dict[str, Any] = record.get("options", {})
        self._digests: dict[str, str] = record.get("files", {})

    def put(self, name: str, content: str, owner: Owner) -> None:
        """Write ``content`` into this file, unless a person changed the file.

        In that case new content is written beside it as ``NAME.new``. With ``force`` the file is overwritten, and the
        old content is kept beside it as ``NAME.old``.
        """
        file, wanted = self._directory / name, _digest(content)
        found = read(file)
        there = None if found is None else hashlib.sha256(found).hexdigest()
        known, self._digests[name] = self._digests.get(name), wanted
        if there is None:
            self._write(name, content, owner, "written")
        elif there == wanted:
            own(file, owner)
            self.states[name] = "unchanged"
        elif there == known:
            self._write(name, content, owner, "updated")
        elif self._force:
            replace(file.with_name(f"{file.name}.old"), found or b"", owner)
            self._write(name, content, owner, "replaced")
        else:
            self._keep(file, name, content, owner, news=known != wanted)

    def note(self, name: str, state: State) -> None:
        """Record the outcome of a file that was not written by :meth:`put`."""
        self.states[name] = state

    def save(self, options: dict[str, Any]) -> None:
        """Save all this for the next time."""
        record = json.dumps({"options": options, "files": self._digests}, indent=1, sort_keys=True)
        replace(self._file, f"{record}\n".encode(), Owner(0o600))

    def _keep(self, file: Path, name: str, content: str, owner: Owner, *, news: bool) -> None:
        if news:
            replace(file.with_name(f"{file.name}.new"), content.encode(), owner)
        self.states[name] = "kept"

    def _write(self, name: str, content: str, owner: Owner, state: State) -> None:
        replace(self._directory / name, content.encode(), owner)
        self.states[name] = state

    def _read(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(read(self._file) or b"{}")
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{self._file}, which says what was written here before, cannot be read ({error}). Take it away: then "
                "every file counts as changed by you."
            ) from error
        return record


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
