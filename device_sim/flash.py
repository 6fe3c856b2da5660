"""Flash: two areas of named values that survive a power cut, on disk or in memory."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from device_sim.actions import APN, FIRMWARE, SERIAL, Area, PowerOn


class Flash(Protocol):
    """Named JSON values in two areas. Each write or erase is atomic."""

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value."""

    def erase(self, area: Area, name: str) -> None:
        """Remove one value; no error when it does not exist."""

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset wipes; some are secrets."""

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset keeps."""


class MemoryFlash:
    """Flash for tests. It survives a restart of the device, but not of the process."""

    def __init__(self) -> None:
        self._cells: dict[tuple[Area, str], str] = {}

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value."""
        self._cells[area, name] = json.dumps(value)  # as JSON, so that a later change of the object has no effect here

    def erase(self, area: Area, name: str) -> None:
        """Remove one value; no error when it does not exist."""
        self._cells.pop((area, name), None)

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset wipes; some are secrets."""
        return self._read(Area.WIPED)

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset keeps."""
        return self._read(Area.KEPT)

    def _read(self, wanted: Area) -> dict[str, Any]:
        return {name: json.loads(text) for (area, name), text in self._cells.items() if area == wanted}


class DirectoryFlash:
    """Flash on disk, one file per value. After a kill or a power cut each file has the old value or the new one.

    The first write makes `path`, readable by its owner only, since it holds a token.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def write(self, area: Area, name: str, value: Any) -> None:
        """Replace one value: write a new file beside it, sync, rename it over the old one, and sync the folder."""
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
        """Remove one value, and the rest of an interrupted write of it."""
        folder = self.path / area
        if not folder.is_dir():
            return
        (folder / f".{name}.new").unlink(missing_ok=True)
        (folder / f"{name}.json").unlink(missing_ok=True)
        _sync(folder)

    @property
    def wiped_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset wipes; some are secrets."""
        return self._read(Area.WIPED)

    @property
    def kept_area(self) -> Mapping[str, Any]:
        """Return the values that a factory reset keeps."""
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
    """Return the input of a device that starts with this flash."""
    return PowerOn(wiped=flash.wiped_area, kept=flash.kept_area)


def manufacture(flash: Flash, *, serial: str, firmware_version: str, cellular_apn: str | None) -> None:
    """Write the factory's values, once. A flash that has a serial number stays as it is."""
    if flash.kept_area.get(SERIAL) is not None:
        return
    flash.write(Area.KEPT, FIRMWARE, firmware_version)
    flash.write(Area.KEPT, APN, cellular_apn)
    flash.write(Area.KEPT, SERIAL, serial)
