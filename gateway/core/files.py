"""Files that are written in one step, and durably: after a crash a file has its old content or its new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SYNCED: Final = os.O_RDONLY | os.O_CLOEXEC


def replace(
    file: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    prepare: Callable[[int], None] | None = None,
    folder: int | None = None,
) -> None:
    """Write a file in one step, durable when this returns.

    A link in the place of the file, or of its draft, is replaced and never followed.

    Args:
        file: the file; its draft lies beside it.
        content: all of the new content.
        mode: the mode of a new file, which the process's umask narrows.
        prepare: gets the draft's descriptor before the file has its name, to set owner and mode.
        folder: a descriptor of the file's folder, where the caller has checked that folder.

    Raises:
        OSError: the file was not written; it has its old content.
    """
    draft = f".{file.name}.new"
    with _folder_of(file) if folder is None else contextlib.nullcontext(folder) as parent:
        with contextlib.suppress(FileNotFoundError):  # left by a process that was killed here
            os.unlink(draft, dir_fd=parent)
        try:
            _write(os.open(draft, _NEW, mode, dir_fd=parent), content, prepare)
            os.replace(draft, file.name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=parent)
            raise
        os.fsync(parent)


def create(file: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make a new file, durable when this returns. A link in its place is not followed.

    Raises:
        FileExistsError: the name is taken; nothing was changed.
        OSError: the file cannot be written.
    """
    with _folder_of(file) as parent:
        _write(os.open(file.name, _NEW, mode, dir_fd=parent), content, None)
        os.fsync(parent)


def open_draft(file: Path, *, mode: int = 0o600) -> tuple[Path, BinaryIO]:
    """Open a new draft beside a file, to write and read; :func:`put_in_place` gives it the name of the file.

    What is in the place of the draft is replaced: it was left by a process that was killed.

    Raises:
        OSError: it cannot be made.
    """
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    return draft, os.fdopen(os.open(draft, (_NEW & ~os.O_WRONLY) | os.O_RDWR, mode), "w+b")


def put_in_place(draft: Path, target: Path) -> None:
    """Give a finished draft in the target's folder the target's name, in one step, durable when this returns."""
    sync(draft)
    draft.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, _SYNCED)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes, prepare: Callable[[int], None] | None) -> None:
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        target.flush()
        if prepare is not None:
            prepare(descriptor)
        os.fsync(descriptor)


@contextlib.contextmanager
def _folder_of(file: Path) -> Iterator[int]:
    folder = os.open(file.parent, _FOLDER)
    try:
        yield folder
    finally:
        os.close(folder)
