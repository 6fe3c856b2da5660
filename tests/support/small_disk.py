"""A file system of a few megabytes that a test fills, where mounting one is allowed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FILLER = "filler"
_PIECES = (65_536, 4_096, 512, 1)


def may_mount() -> bool:
    """Whether this user may mount a file system."""
    return os.geteuid() == 0


@contextmanager
def small_disk(where: Path, kib: int) -> Iterator[Path]:
    """A file system of so many KiB at `where`, which must not exist yet."""
    where.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "none", str(where)], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[Callable[[], None]]:
    """Leave no byte free; call what this yields to take again what others have given up meanwhile."""
    filler = disk / _FILLER

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            for piece in _PIECES:
                _write_until_full(file.fileno(), bytes(piece))

    fill()
    try:
        yield fill
    finally:
        filler.unlink()


def _write_until_full(descriptor: int, piece: bytes) -> None:
    try:
        while True:
            os.write(descriptor, piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
