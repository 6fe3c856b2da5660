"""What survives a power cut: two areas of named values, on disk or in memory."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from device_sim.actions import Area, PowerOn
from device_sim.device import APN, FIRMWARE, SERIAL


class Flash(Protocol):
    """Named JSON values in two areas; each write or erase happens wholly or not at all."""

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value."""

    def erase(self, area: Area, name: str) -> None:
        """Remove one value; no error when it is gone already."""

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """What a factory reset wipes; holds secrets."""

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """What outlives a factory reset."""


class MemoryFlash:
    """A flash for tests: survives the device's death, not the process's."""

    def __init__(self) -> None:
        self._cells: dict[tuple[Area, str], str] = {}

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value."""
        self._cells[area, name] = json.dumps(value)  # as JSON, so that nobody holds on to the object written

    def erase(self, area: Area, name: str) -> None:
        """Remove one value; no error when it is gone already."""
        self._cells.pop((area, name), None)

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """What a factory reset wipes; holds secrets."""
        return self._read(Area.WIPED)

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """What outlives a factory reset."""
        return self._read(Area.KEPT)

    def _read(self, wanted: Area) -> dict[str, Any]:
        return {name: json.loads(text) for (area, name), text in self._cells.items() if area == wanted}


class DirectoryFlash:
    """A flash on disk, one file per value; whenever a kill or a power cut comes, a value is the old or the new one.

    `path` is made at the first write, readable by its owner only: a token lies in it.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value: a new file beside it, synced, renamed over it, and the rename synced."""
        folder = self.path / area
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder / f".{name}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / f"{name}.json")
        _sync(folder)

    def erase(self, area: Area, name: str) -> None:
        """Remove one value, and what a write cut short may have left of it."""
        folder = self.path / area
        if not folder.is_dir():
            return
        (folder / f".{name}.new").unlink(missing_ok=True)
        (folder / f"{name}.json").unlink(missing_ok=True)
        _sync(folder)

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """What a factory reset wipes; holds secrets."""
        return self._read(Area.WIPED)

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """What outlives a factory reset."""
        return self._read(Area.KEPT)

    def _read(self, area: Area) -> dict[str, Any]:
        files = sorted((self.path / area).glob("[!.]*.json"))
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def power_on(flash: Flash) -> PowerOn:
    """What a device that starts now finds."""
    return PowerOn(wiped=flash.wiped_area, kept=flash.kept_area)


def manufacture(flash: Flash, *, serial: str, firmware_version: str, cellular_apn: str | None) -> None:
    """Write what a factory writes, once; a flash that has a serial number is left as it is."""
    if flash.kept_area.get(SERIAL) is not None:
        return
    flash.write(Area.KEPT, FIRMWARE, firmware_version)
    flash.write(Area.KEPT, APN, cellular_apn)
    flash.write(Area.KEPT, SERIAL, serial)
