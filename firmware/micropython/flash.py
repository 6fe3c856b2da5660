"""Flash: one small file per value in two areas, which survive a power cut at any point.

It needs a file system whose rename replaces a file at once: LittleFS, the usual one on boards, or that of Unix.
"""

import json
import os

import strict_json

AREAS = ("wiped", "kept")  # a factory reset wipes the first


class Flash:
    """Named JSON values in the folder `path`; each write or erase happens as a whole or not at all."""

    def __init__(self, path):
        self.path = path
        for folder in (path, f"{path}/wiped", f"{path}/kept"):
            if not _exists(folder):
                os.mkdir(folder)

    def write(self, area, name, value):
        """Replace one value: write a new file, sync it, rename it over the old one. Equal values cost no write."""
        if _holds(self._file(area, name), value):
            return
        new = f"{self.path}/{area}/.{name}.new"
        with open(new, "wb") as file:
            strict_json.write(value, file.write)
            file.flush()  # on boards and on the Unix port this syncs the file
        os.rename(new, self._file(area, name))
        _sync()

    def erase(self, area, name):
        """Remove one value, and the rest of an interrupted write of it; no error when it does not exist."""
        for path in (f"{self.path}/{area}/.{name}.new", self._file(area, name)):
            if _exists(path):
                os.remove(path)
        _sync()

    def read(self, area):
        """Return all values of an area by their names. A damaged file counts as missing."""
        found = {}
        for entry in os.listdir(f"{self.path}/{area}"):
            if entry.endswith(".json") and not entry.startswith("."):
                try:
                    with open(f"{self.path}/{area}/{entry}") as file:
                        found[entry[:-5]] = json.load(file)
                except ValueError:
                    continue
        return found

    def _file(self, area, name):
        return f"{self.path}/{area}/{name}.json"


def _exists(path):
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _holds(path, value):
    """Return whether a file holds this value. Compare part by part: a small heap has no room for two copies."""
    if not _exists(path):
        return False
    with open(path, "rb") as file:
        differs = []

        def compare(part):
            if not differs and file.read(len(part)) != part:
                differs.append(part)

        strict_json.write(value, compare)
        return not differs and not file.read(1)


def _sync():
    if hasattr(os, "sync"):
        os.sync()
