"""Lines of a password file on disk, read a piece at a time: a file of a million devices takes 140 MB.

The gateway writes all lines in the order of their names. In a file that is known to be written by it, a line is found
by halving.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.core import ids

DEVICE: Final = ids.DEVICE.encode()
"""Begin of the lines of devices. They follow one another, in the order of their names."""
AFTER_DEVICES: Final = DEVICE[:-1] + bytes([DEVICE[-1] + 1])
"""The first name after those of all devices."""
BLOCK_BYTES: Final = 1 << 20
_PAGE_BYTES: Final = 4_096
"""More than a few lines: a name and an entry have 128 bytes and 113 at most."""
Stamp = tuple[int, int, int]
"""Inode number, time of the last change in nanoseconds, size in bytes. It changes whenever a file is written."""
MISSING: Final[Stamp] = (0, 0, 0)
_OTHERS: Final = re.compile(rb"^(?!%b).*$" % re.escape(DEVICE), re.MULTILINE)
_CLOSED: Final = -1


class PasswordLines:
    """The content of a password file that is held open. It stays readable when the file is replaced."""

    def __init__(self, descriptor: int | None, known: Stamp | None = None) -> None:
        """Take over the descriptor; None: an empty file. ``known``: the stamp of a file in the order of names."""
        self._descriptor = _CLOSED if descriptor is None else descriptor
        self._is_ordered = known is not None and stamp_of(self._descriptor) == known

    @classmethod
    def of(cls, path: Path, known: Stamp | None = None) -> PasswordLines:
        """Return the lines of the file at this path; none where it cannot be read."""
        with suppress(OSError):
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), known)
        return cls(None)

    def __del__(self) -> None:
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)

    def accounts(self) -> dict[str, str]:
        """Return user name and entry of each line that is no device's."""
        found = lines_around_devices(self._descriptor) if self._is_ordered else other_lines(self._descriptor)
        return {name: entry for name, colon, entry in (line.partition(":") for _, line in found) if colon}

    def missing_accounts_in(self, other: PasswordLines) -> set[str]:
        """Return the accounts that are no devices whose line the other file has not."""
        theirs = other.accounts()
        return {name for name, entry in self.accounts().items() if theirs.get(name) != entry}

    def devices(self) -> Iterator[tuple[str, str]]:
        """Yield id and entry of each device, in the order of the file."""
        for line in self._device_lines(0):
            name, colon, entry = line.decode("utf-8", "replace").partition(":")
            if colon:
                yield name, entry

    def entries_of(self, names: Collection[str]) -> dict[str, str]:
        """Return the entry of each of these devices that has one, by name."""
        if not self._is_ordered or self._descriptor == _CLOSED:
            return {name: entry for name, entry in self.devices() if name in names}
        places = (place(self._descriptor, name.encode()) for name in names)
        lines = (os.pread(self._descriptor, end - begin, begin).decode().rstrip("\n") for begin, end in places)
        return {name: entry for name, colon, entry in (line.partition(":") for line in lines) if colon}

    def between(self, after: str, until: str | None) -> bytes | None:
        """Return the lines of devices after the one and up to the other, without ``until`` up to the last.

        Return None where the file is not in the order of names.
        """
        if not self._is_ordered:
            return None
        begin = place(self._descriptor, after.encode())[1] if after else place(self._descriptor, DEVICE)[0]
        end = place(self._descriptor, until.encode() if until else AFTER_DEVICES, begin)[1 if until else 0]
        return os.pread(self._descriptor, end - begin, begin)

    def missing_in(self, other: PasswordLines) -> set[str]:
        """Return the users of this file whose line the other one has not: they are gone there, or changed."""
        gone = self.missing_accounts_in(other)
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


def stamp_of(descriptor: int) -> Stamp:
    """Return the stamp of an open file, or :data:`MISSING` without one."""
    if descriptor == _CLOSED:
        return MISSING
    found = os.fstat(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


def place(descriptor: int, name: bytes, begin: int = 0) -> tuple[int, int]:
    """Return where the line of this name begins and ends in an open file whose lines have the order of names.

    Without such a line, both are where it would begin. ``begin``: begin of a line that is not after it.
    """
    low, high = begin, os.fstat(descriptor).st_size
    while high - low > _PAGE_BYTES:
        middle = (low + high) // 2
        rest, _, after = os.pread(descriptor, _PAGE_BYTES, middle).partition(b"\n")
        if after and _name(after) < name:
            low = middle + len(rest) + 1
        else:
            high = middle
    for line in os.pread(descriptor, 2 * _PAGE_BYTES, low).split(b"\n"):
        if not line or _name(line) >= name:
            return low, low + (len(line) + 1 if line and _name(line) == name else 0)
        low += len(line) + 1
    return low, low


def blocks(descriptor: int, begin: int = 0) -> Iterator[bytes]:
    """Yield the content of an open file from this byte on, in pieces of BLOCK_BYTES."""
    while descriptor != _CLOSED and (block := os.pread(descriptor, BLOCK_BYTES, begin)):
        yield block
        begin += len(block)


def lines_around_devices(descriptor: int) -> Iterator[tuple[int, str]]:
    """Yield the text of each line that is no device's, of a file in the order of names. All have the number 0."""
    before, after = (place(descriptor, name)[0] for name in (DEVICE, AFTER_DEVICES))
    around = os.pread(descriptor, before, 0) + b"".join(blocks(descriptor, after))
    for line in around.splitlines():
        yield 0, line.decode("utf-8", "replace")


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
