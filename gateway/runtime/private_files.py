"""Ownership of the data directory and its files. What another user could have written is refused.

The rule for the directory is PostgreSQL's: it belongs to the user that the server runs as, and only that user may write
in it. Who may write there can replace the registry with its signing keys.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from gateway.core import files
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_ROOT: Final = 0
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # the open of a pipe must not wait


class ForeignFileError(UnavailableError):
    """Another user wrote this file, or could have; the message names the remedy."""


def require_own_directory(directory: Path) -> None:
    """Refuse a data directory that another user could change.

    A directory that does not exist passes: the gateway makes it with mode 0700.

    Raises:
        UnavailableError: it belongs to another user, or group or others may write in it.
    """
    try:
        state = directory.stat()
    except OSError:
        return  # the next open says why it cannot be used
    if state.st_uid != os.geteuid():
        raise UnavailableError(
            f"The data directory {directory} belongs to the user with the number {state.st_uid}, and this gateway runs "
            f"as {os.geteuid()}: that user could replace the registry. Run the gateway as that user, or give the "
            f"directory away: chown -R {os.geteuid()} {directory}"
        )
    if state.st_mode & _OTHERS_WRITE:
        raise UnavailableError(
            f"Other users may write in the data directory {directory} (mode {stat.S_IMODE(state.st_mode):04o}), so "
            f"they could replace the registry: chmod go-rwx {directory}. Where the mode of a mounted volume is fixed, "
            "name a directory in it with --data-dir; the gateway makes that."
        )


def is_open_to_others(directory: Path) -> bool:
    """Return whether others may read or enter the directory; False for one that does not exist."""
    try:
        return bool(directory.stat().st_mode & _OTHERS)
    except OSError:
        return False


def read_trusted(file: Path) -> str:
    """Return the text of a file that this user or root owns, and that no other user may write.

    Raises:
        ForeignFileError: it belongs to another user, or others may write it.
        OSError: it cannot be read.
        ValueError: it is no UTF-8.
    """
    with os.fdopen(os.open(file, _FILE), encoding="utf-8") as source:
        state = os.fstat(source.fileno())
        if state.st_uid not in (_ROOT, os.geteuid()):
            raise ForeignFileError(
                f"belongs to the user with the number {state.st_uid}, so it is not believed by user {os.geteuid()}. "
                "Run this as that user, give the file to root, or name it with --config"
            )
        if state.st_mode & _OTHERS_WRITE:
            raise ForeignFileError(f"may be written by other users, so it is not believed: chmod go-w {file}")
        return source.read()


def read_secret_line(file: Path, setting: str, what: str) -> str:
    """Return the one line of a file with a secret; ``setting`` names the file, ``what`` says what it should hold.

    Raises:
        UnavailableError: the file cannot be read, or holds no such line.
    """
    try:
        secret = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UnavailableError(
            f"The file {file} of the setting '{setting}' cannot be read ({reason}). Put {what} there, readable for the "
            "gateway's user."
        ) from None
    if not secret or "\0" in secret or "\n" in secret:
        raise UnavailableError(f"The file {file} of the setting '{setting}' should hold {what}, in one line.")
    return secret


def replace_text(file: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file in one step. Links are not followed: one in its place, or in that of its draft, is removed.

    Raises:
        OSError: it cannot be written.
    """
    files.replace(file, text.encode(), mode=mode)
