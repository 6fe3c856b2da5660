"""Draft of the password file, made a piece at a time. It is written from the first piece on that differs."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final

from gateway.broker.mosquitto.password_lines import (
    AFTER_DEVICES,
    DEVICE,
    MISSING,
    PasswordLines,
    Stamp,
    place,
    stamp_of,
)
from gateway.core.files import open_draft, put_in_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    Pairs = Sequence[tuple[str, str]]
    Lines = Callable[[Pairs, str | None], bytes]
    """Checks user names and entries and returns their lines; the text is the device before them, None: no devices."""

AT_ONCE: Final = 5_000
"""Devices that are checked and written at a time: under a megabyte."""
_DEVICE: Final = DEVICE.decode()
_COPIED_BYTES: Final = 1 << 26


class PasswordDraft:
    """The next content of a password file: accounts with names before those of devices, devices, other accounts.

    ``lines`` makes the lines of some users; ``prepare`` sets owner and mode of a new file, by its descriptor. Nothing
    is written while the content is that of the present file. Leaving the block without :meth:`put` drops it.
    """

    def __init__(self, path: Path, accounts: Mapping[str, str], lines: Lines, prepare: Callable[[int], None]) -> None:
        self._path = path
        self._accounts = accounts
        self._lines = lines
        self._prepare = prepare
        self._present: int | None = None
        self._same = 0
        self._new: tuple[Path, BinaryIO] | None = None
        self._lock = threading.Lock()
        self._is_dropped = False

    def __enter__(self) -> Self:
        with suppress(FileNotFoundError):
            self._present = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:  # a thread may still be at work for a task that was cancelled
            self._is_dropped = True
            if self._present is not None:
                os.close(self._present)
            if self._new is not None:
                draft, file = self._new
                file.close()
                with suppress(OSError):  # it has the name of the file by now
                    draft.unlink()

    @property
    def is_new(self) -> bool:
        """Return whether the content differs from the present file."""
        return self._new is not None

    @property
    def stamp(self) -> Stamp:
        """Return the stamp of the present file, or :data:`MISSING` without one."""
        return MISSING if self._present is None else stamp_of(self._present)

    def same_accounts(self, stamp: Stamp | None) -> Mapping[str, str] | None:
        """Return the accounts of the present file, if it has this stamp and the draft says the same so far."""
        if self._new is not None or self._present is None or self.stamp != stamp:
            return None
        return PasswordLines(os.dup(self._present), stamp).accounts()

    def add_devices(self, entries: Iterable[tuple[str, str]]) -> None:
        """Add all devices, in the order of their names.

        Raises:
            PasswordEntryError: one of them must not get into the file.
            OSError: the draft cannot be written.
        """
        self._add_accounts(self._accounts, after=False)
        rows, last = iter(entries), ""
        while some := list(islice(rows, AT_ONCE)):
            self._add(self._lines(some, last))
            last = some[-1][0]

    def keep_devices(self, changes: Mapping[str, str | None]) -> set[str]:
        """Add the devices of the present file, which has the order of names, with these changes: entry by name.

        None removes a device. Return the devices whose line is gone or changed. Nothing is read but those lines.

        Raises:
            PasswordEntryError, OSError: as above.
        """
        self._add_accounts(self._accounts, after=False)
        present = self._present if self._present is not None else -1
        at, end = place(present, DEVICE)[0], place(present, AFTER_DEVICES)[0]
        edited = set()
        for name, entry in sorted(changes.items()):
            begin, after = place(present, name.encode(), at)
            line = b"" if entry is None else self._lines([(name, entry)], "")
            if begin < after and os.pread(present, after - begin, begin) != line:
                edited.add(name)
            self._keep(at, begin)
            self._add(line)
            at = after
        self._keep(at, end)
        return edited

    def finish(self, accounts: Mapping[str, str]) -> PasswordLines:
        """Add the other accounts; return all of the content.

        Raises:
            PasswordEntryError, OSError: as above.
        """
        self._add_accounts(accounts, after=True)
        with self._in_use():
            if self._new is None and (self._present is None or os.fstat(self._present).st_size > self._same):
                self._new = self._begin()
            if self._new is not None:
                self._new[1].flush()
            whole = self._present if self._new is None else self._new[1].fileno()
            return PasswordLines(None) if whole is None else PasswordLines(os.dup(whole), stamp_of(whole))

    def put(self) -> bool:
        """Give the content the name of the file. Return False, and change nothing, when the file says so already.

        Raises:
            OSError: the file is as it was.
        """
        with self._in_use():
            if self._new is None:
                return False
            draft, file = self._new
            file.flush()
            self._prepare(file.fileno())
            put_in_place(draft, self._path)
            return True

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._lock:
            if self._is_dropped:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            yield

    def _add_accounts(self, accounts: Mapping[str, str], *, after: bool) -> None:
        """Add those with names before the devices' names, or after them."""
        self._add(self._lines([each for each in sorted(accounts.items()) if (each[0] >= _DEVICE) is after], None))

    def _add(self, block: bytes) -> None:
        with self._in_use():
            if self._new is None:
                if self._present is not None and os.pread(self._present, len(block), self._same) == block:
                    self._same += len(block)
                    return
                self._new = self._begin()
            self._new[1].write(block)

    def _keep(self, begin: int, end: int) -> None:
        """Add a range of the present file."""
        with self._in_use():
            if self._new is None and self._same == begin:
                self._same = end
                return
            if self._new is None:
                self._new = self._begin()
            self._copy(self._new[1], begin, end)

    def _begin(self) -> tuple[Path, BinaryIO]:
        """Begin the draft with what is the same in the present file."""
        new = self._new = open_draft(self._path)
        self._copy(new[1], 0, self._same)
        return new

    def _copy(self, to: BinaryIO, begin: int, end: int) -> None:
        """Copy a range of the present file within the kernel."""
        to.flush()
        while self._present is not None and begin < end:
            done = os.sendfile(to.fileno(), self._present, begin, min(end - begin, _COPIED_BYTES))
            if not done:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # it became shorter meanwhile
            begin += done
        to.seek(0, os.SEEK_END)
