"""Lines of a password file on disk, read a piece at a time: a file of a million devices takes 140 MB."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.core import ids

DEVICE: Final = ids.DEVICE.encode()
"""Begin of the lines of devices. They follow one another, in the order of their names."""
BLOCK_BYTES: Final = 1 << 20
_OTHERS: Final = re.compile(rb"^(?!%b).*$" % re.escape(DEVICE), re.MULTILINE)
_CLOSED: Final = -1


class PasswordLines:
    """The content of a password file that is held open. It stays readable when the file is replaced."""

    def __init__(self, descriptor: int | None) -> None:
        """Take over the descriptor; None: an empty file."""
        self._descriptor = _CLOSED if descriptor is None else descriptor

    @classmethod
    def of(cls, path: Path) -> PasswordLines:
        """Return the lines of the file at this path; none where it cannot be read."""
        with suppress(OSError):
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return cls(None)

    def __del__(self) -> None:
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)

    def accounts(self) -> dict[str, str]:
        """Return user name and entry of each line that is no device's."""
        pairs = (line.partition(":") for _, line in other_lines(self._descriptor))
        return {name: entry for name, colon, entry in pairs if colon}

    def devices(self) -> Iterator[tuple[str, str]]:
        """Yield id and entry of each device, in the order of the file."""
        for line in self._device_lines(0):
            name, colon, entry = line.decode("utf-8", "replace").partition(":")
            if colon:
                yield name, entry

    def missing_in(self, other: PasswordLines) -> set[str]:
        """Return the users of this file whose line the other one has not: they are gone there, or changed."""
        theirs = other.accounts()
        gone = {name for name, entry in self.accounts().items() if theirs.get(name) != entry}
        try:
            return gone | set(self._merged(other))
        except _OutOfOrderError:  # a person has sorted it: this takes memory for all of it
            known = set(other._device_lines(0))
            return gone | {_name(line).decode() for line in self._device_lines(0) if line not in known}

    def _merged(self, other: PasswordLines) -> Iterator[str]:
        """Yield the devices whose line is missing in the other file. Equal beginnings are not taken apart."""
        begin = self._equal_until(other)
        theirs = other._device_lines(begin)
        their, before = next(theirs, None), b""
        for line in self._device_lines(begin):
            name = _name(line)
            if name < before:
                raise _OutOfOrderError
            before = name
            while their is not None and _name(their) < name:
                their = next(theirs, None)
            if their != line:
                yield name.decode("utf-8", "replace")

    def _equal_until(self, other: PasswordLines) -> int:
        """Return the begin of a line up to which both files are the same."""
        begin = done = 0
        for mine, their in zip(blocks(self._descriptor), blocks(other._descriptor), strict=False):
            if mine != their:
                break
            begin = done + mine.rfind(b"\n") + 1 if b"\n" in mine else begin
            done += len(mine)
        return begin

    def _device_lines(self, begin: int) -> Iterator[bytes]:
        return (line for line in _lines(self._descriptor, begin) if line.startswith(DEVICE))


class _OutOfOrderError(Exception):
    """The lines of devices are not in the order of their names."""


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0]


def blocks(descriptor: int, begin: int = 0) -> Iterator[bytes]:
    """Yield the content of an open file from this byte on, in pieces of BLOCK_BYTES."""
    while descriptor != _CLOSED and (block := os.pread(descriptor, BLOCK_BYTES, begin)):
        yield block
        begin += len(block)


def _pieces(descriptor: int, begin: int = 0) -> Iterator[bytes]:
    """Yield the same in pieces that end with a line, without its line break."""
    rest = b""
    for block in blocks(descriptor, begin):
        whole, found, after = (rest + block).rpartition(b"\n")
        if found:
            yield whole
        rest = after
    if rest:
        yield rest


def _lines(descriptor: int, begin: int) -> Iterator[bytes]:
    for piece in _pieces(descriptor, begin):
        yield from piece.split(b"\n")


def other_lines(descriptor: int) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is no device's. Those of devices are skipped unread."""
    number = 1
    for piece in _pieces(descriptor):
        counted = 0
        for found in _OTHERS.finditer(piece):
            number += piece.count(b"\n", counted, found.start())
            counted = found.start()
            yield number, found[0].rstrip(b"\r").decode("utf-8", "replace")
        number += piece.count(b"\n", counted) + 1
