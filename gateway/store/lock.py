"""One gateway per data directory: a file lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gateway.errors import AlreadyRunningError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME: Final = "gateway.lock"
_MADE_OR_FOUND: Final = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
"""Not by way of a link: it is written to, and root may do so where another user could have put one to any file."""


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for as long as the block runs.

    Raises:
        AlreadyRunningError: another gateway holds it.
        StoreError: the directory cannot be used.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / LOCK_NAME, _MADE_OR_FOUND, 0o600)
    except OSError as error:
        raise StoreError(
            f"The data directory {data_dir} cannot be used ({error.strerror}). Make it writable for this user, or name "
            "another one with --data-dir."
        ) from error
    try:
        _lock(descriptor, data_dir)
        yield
    finally:
        os.close(descriptor)


def holder(data_dir: Path) -> int | None:
    """The process of the gateway that runs on this data directory; ``None`` when none does."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(written) if written.isdecimal() else None
    finally:
        os.close(descriptor)
    return None


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep others from opening the database for as long as the block runs, wait for those who are at it.

    Two processes that both make a new database, or migrate an old one, would meet each other's half-done work. The
    lock is on the directory itself, and apart from that of :func:`exclusive`, which a running gateway keeps.

    Raises:
        OSError: the directory cannot be used.
    """
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise AlreadyRunningError(
            f"A gateway (process {holder}) runs on the data directory {data_dir} already. Stop that one, or start "
            "this one with another --data-dir."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
