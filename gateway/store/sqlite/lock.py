"""Lock of the data directory: one gateway per directory. The lock ends with its process, however that ends.

The lock is on the directory itself. A file in it can be removed by hand while its lock is held: the next process would
make a new one and find it free.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import AlreadyRunningError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_NAME: Final = "gateway.lock"
"""Holds the process id. It is locked as well: gateways before 0.2 know only this lock."""
OPENING_NAME: Final = "registry.lock"
UNKNOWN_PROCESS: Final = 0
_MADE_OR_FOUND: Final = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
"""Opens without following a link: root may write here, where another user could have linked it to any file."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCKS: Final = Path("/proc/locks")


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for as long as the block runs.

    Raises:
        AlreadyRunningError: another gateway holds it.
        StoreError: the directory cannot be used.
    """
    opened: list[int] = []
    try:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened += [os.open(data_dir, _DIRECTORY), _private(data_dir / LOCK_NAME)]
            for descriptor in opened:
                _lock(descriptor, data_dir)
            os.ftruncate(opened[-1], 0)
            os.pwrite(opened[-1], f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StoreError(
                f"The data directory {data_dir} cannot be used ({error.strerror}). Make it writable for this user, "
                "make room, or name another one with --data-dir."
            ) from error
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


def holder(data_dir: Path) -> int | None:
    """Return the process of the gateway that runs on this data directory, or None when none does.

    Return ``UNKNOWN_PROCESS`` when one runs, and neither its file nor the kernel names it.
    """
    for path in (data_dir, data_dir / LOCK_NAME):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _process(data_dir)
            finally:
                os.close(descriptor)
    return None


def _process(data_dir: Path) -> int:
    """Return the process that holds the directory, by its file, or by the kernel's list of locks (proc_locks(5))."""
    with suppress(OSError):
        written = (data_dir / LOCK_NAME).read_text("ascii", "replace").strip()
        if written.isdecimal():
            return int(written)
    with suppress(OSError):
        inode = data_dir.stat().st_ino
        for line in _LOCKS.read_text("ascii").splitlines():
            _, kind, _, access, process, place, *_ = line.split()
            if (kind, access) == ("FLOCK", "WRITE") and place.rpartition(":")[2] == str(inode):
                return int(process)
    return UNKNOWN_PROCESS


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep others from opening the database for as long as the block runs; wait for those that have it open.

    Two processes that both make a new database, or one that opens what another replaces, would see half-done work. This
    lock is apart from that of :func:`exclusive`, which a running gateway keeps.

    Raises:
        OSError: the directory cannot be used.
    """
    path = data_dir / OPENING_NAME
    while True:
        descriptor = _private(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Return whether the file still has that name. One that was removed during the wait for its lock locks nothing."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False


def _private(path: Path) -> int:
    """Return a descriptor of this file, made if need be. What root makes gets the owner of the directory."""
    descriptor = os.open(path, _MADE_OR_FOUND, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunningError(
            f"A gateway (process {_process(data_dir) or 'unknown'}) runs on the data directory {data_dir} already. "
            "Stop that one, or start this one with another --data-dir."
        ) from None
