"""Flash: one small file per value in two areas, which survive a power cut at any point.

It needs a file system whose rename replaces a file at once: LittleFS, the usual one on boards, or that of Unix.
"""

import json
import os

from strict_json import parts


class Flash:
    """Named JSON values in the folder `path`; each write or erase happens as a whole or not at all."""

    def __init__(self, path):
        self.path = path
        for folder in (path, f"{path}/wiped", f"{path}/kept"):  # a factory reset wipes the first area
            if not _exists(folder):
                os.mkdir(folder)

    def write(self, area, name, value):
        """Replace one value: write a new file, sync it, rename it over the old one. Equal values cost no write."""
        old, new = self._files(area, name)
        if _exists(old) and _holds(old, value):
            return
        with open(new, "wb") as file:
            for part in parts(value):  # noqa: FURB122  # MicroPython has no `writelines`
                file.write(part)
            file.flush()  # on boards and on the Unix port this syncs the file
        os.rename(new, old)
        _sync()

    def erase(self, area, name):
        """Remove one value, and the rest of an interrupted write of it; no error when it does not exist."""
        for file in self._files(area, name):
            if _exists(file):
                os.remove(file)
        _sync()

    def read(self, area):
        """Return all values of an area by their names. A damaged file counts as missing."""
        found = {}
        for entry in os.listdir(f"{self.path}/{area}"):
            if entry.endswith(".json"):
                try:
                    with open(f"{self.path}/{area}/{entry}") as file:
                        found[entry[:-5]] = json.load(file)
                except ValueError:
                    continue
        return found

    def _files(self, area, name):
        return f"{self.path}/{area}/{name}.json", f"{self.path}/{area}/.{name}.new"


def _exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _holds(path, value):
    with open(path, "rb") as file:
        return all(file.read(len(part)) == part for part in parts(value)) and not file.read(1)


def _sync():
    if hasattr(os, "sync"):
        os.sync()
