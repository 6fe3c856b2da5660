"""Files that root writes and gives to other users, safe against links that those users plant.

Each step works on a descriptor: that of the folder, opened without following a link, and that of the file. A folder
that other users may write, or that belongs to another user, is refused before anything is made in it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.core import files
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block the open
_ROOT: Final = 0


@dataclass(frozen=True)
class Owner:
    """Owner and mode of a file; None leaves that part as it is."""

    mode: int
    uid: int | None = None
    gid: int | None = None


def check_place(directory: Path) -> None:
    """Refuse a directory that another user could change while it is written.

    Raises:
        UnavailableError: it is a link; or it, or a folder above it, belongs to another user or may be written by
            others. A sticky folder such as ``/tmp`` above it is accepted.
    """
    if directory.is_symlink():
        raise UnavailableError(f"{directory} is a link. Name the directory that it leads to: {directory.resolve()}.")
    lexical = directory.absolute()
    places = {*lexical.parents, *lexical.resolve().parents, lexical}
    for place in sorted(places, key=lambda each: len(each.parts)):
        with contextlib.suppress(FileNotFoundError):
            _check_one(place, place.lstat(), sticky_is_good=place != lexical)


def _check_one(place: Path, state: os.stat_result, *, sticky_is_good: bool) -> None:
    if state.st_uid not in (_ROOT, os.geteuid()):
        raise UnavailableError(
            f"{place} belongs to the user with the number {state.st_uid}, who could put other files into place while "
            f"these are written. Choose a directory below folders of root alone, such as /srv/device-gateway."
        )
    if stat.S_ISLNK(state.st_mode) or (sticky_is_good and state.st_mode & stat.S_ISVTX):
        return
    others = stat.S_IWOTH | (stat.S_IWGRP if os.geteuid() == _ROOT and state.st_gid != _ROOT else 0)
    if state.st_mode & others:
        raise UnavailableError(
            f"{place} may be written by others, who could put other files into place while these are written: "
            f"chmod go-w {place}"
        )


def make_folder(path: Path, owner: Owner) -> None:
    """Make a folder unless it exists, and give it to its owner.

    Raises:
        UnavailableError: the name is taken by something else, such as a link.
    """
    with _parent_of(path) as parent:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path.name, 0o700, dir_fd=parent)
        with _opened(path, _FOLDER, parent) as folder:
            _give(folder, owner)


def replace(file: Path, content: bytes, owner: Owner) -> None:
    """Write a file in one step. A reader sees the old or the new content, and only with the rights to the new one."""
    with _parent_of(file) as parent:
        files.replace(file, content, prepare=lambda descriptor: _give(descriptor, owner), folder=parent)


def own(path: Path, owner: Owner) -> None:
    """Give a file to its owner.

    Raises:
        UnavailableError: it is a link, has a second name elsewhere, or is no file.
    """
    with _parent_of(path) as parent, _opened(path, _FILE, parent) as file:
        _check_file(path, os.fstat(file))
        _give(file, owner)


def read(path: Path) -> bytes | None:
    """Return the content of a file, or None without a file.

    Raises:
        UnavailableError: it is a link, has a second name elsewhere, or is no file.
    """
    try:
        with _parent_of(path) as parent, _opened(path, _FILE, parent) as file:
            _check_file(path, os.fstat(file))
            with os.fdopen(os.dup(file), "rb") as source:
                return source.read()
    except FileNotFoundError:
        return None


def _give(descriptor: int, owner: Owner) -> None:
    """Set the owner, then the mode: a change of owner clears set-group bits."""
    if owner.uid is not None or owner.gid is not None:
        os.fchown(descriptor, -1 if owner.uid is None else owner.uid, -1 if owner.gid is None else owner.gid)
    os.fchmod(descriptor, owner.mode)


def _check_file(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
        raise UnavailableError(f"{path} is no plain file, or has a second name elsewhere. Take it away.")


@contextlib.contextmanager
def _parent_of(path: Path) -> Iterator[int]:
    with _opened(path.parent, _FOLDER, None) as parent:
        yield parent


@contextlib.contextmanager
def _opened(path: Path, flags: int, parent: int | None) -> Iterator[int]:
    try:
        descriptor = os.open(path if parent is None else path.name, flags, dir_fd=parent)
    except OSError as error:
        if path.is_symlink():
            raise UnavailableError(f"{path} is a link, which is not followed. Take it away.") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)
