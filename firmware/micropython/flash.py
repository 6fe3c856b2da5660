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
            try:
                os.mkdir(folder)
            except OSError:
                pass  # it is there, or the first write fails

    def write(self, area, name, value):
        """Replace one value: write a new file, sync it, rename it over the old one. Equal values cost no write."""
        folder, entry = f"{self.path}/{area}", f"{name}.json"
        if entry in os.listdir(folder) and _holds(f"{folder}/{entry}", value):
            return
        with open(f"{folder}/.{name}.new", "wb") as file:
            for part in parts(value):  # noqa: FURB122  # MicroPython has no `writelines`
                file.write(part)
            file.flush()  # on boards and on the Unix port this syncs the file
        os.rename(f"{folder}/.{name}.new", f"{folder}/{entry}")
        _sync()

    def erase(self, area, name):
        """Remove one value, and the rest of an interrupted write of it; no error when it does not exist."""
        folder = f"{self.path}/{area}"
        for entry in (f"{name}.json", f".{name}.new"):
            if entry in os.listdir(folder):
                os.remove(f"{folder}/{entry}")
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
                    pass
        return found


def _holds(path, value):
    with open(path, "rb") as file:
        return all(file.read(len(part)) == part for part in parts(value)) and not file.read(1)


def _sync():
    if hasattr(os, "sync"):
        os.sync()
