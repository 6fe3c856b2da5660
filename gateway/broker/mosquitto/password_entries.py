"""Accounts in Mosquitto's password file that are no devices: the gateway's own, and those an operator added."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from gateway.broker.mosquitto.password_file import (
    OWN_FORM,
    SALT_BYTES,
    PasswordFileError,
    is_account,
    is_account_name,
    salt_of,
)
from gateway.broker.mosquitto.password_lines import Stamp, lines_around_devices, other_lines, stamp_of
from gateway.core.credentials import broker_entry
from gateway.store import account_sql

log = structlog.get_logger()

_CLOSED: Final = -1
_MOST_HELD: Final = 64
_HELD_SECONDS: Final = 600.0
"""As long as a person may take to type a password."""
LEFT_OUT: Final = (
    "{lines} of {file} cannot be read by Mosquitto and was left out; the rest is in force. Make that account again "
    "with mosquitto_passwd, or restart the gateway when none is missing."
)


@dataclass(frozen=True)
class People:
    """Accounts of a password file that are no devices (user name to entry), and the lines that cannot be used.

    A bad line is named by its user name, or by its number where it has none. Its other parts may be a password.
    """

    entries: dict[str, str] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()


def people_in(lines: Iterable[tuple[int, str]]) -> People:
    """Parse the lines that are no device's, with their numbers.

    A line that Mosquitto would not understand must not get into the next file.
    """
    entries, unusable = {}, []
    for number, line in lines:
        name, colon, entry = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if colon and is_account(name, entry):
            entries[name] = entry
        else:
            unusable.append(f"line {number} ('{name}')" if colon and is_account_name(name) else f"line {number}")
    return People(entries, tuple(unusable))


def kept_entries(path: Path, known: Stamp | None = None) -> dict[str, str]:
    """Return user name and entry of each account in the file that is no device; empty when there is no file.

    ``known``: the stamp of a file that the gateway wrote. The lines of its devices are not read.

    Raises:
        PasswordFileError: the file cannot be read.
    """
    found = open_file(path, known)
    return {} if found is None else found.closed().entries


class Opened:
    """A password file held open as it was when it was read. It shows what was written to it since."""

    def __init__(self, descriptor: int, known: Stamp | None = None) -> None:
        self._descriptor = descriptor  # closed with this object; a file object of Python would warn
        self._known = known
        self.people = People()
        self._seen = self._stamp()
        self.people = self._now()
        self._since = time.monotonic()

    @property
    def age(self) -> float:
        """Return the seconds since it was read."""
        return time.monotonic() - self._since

    def __del__(self) -> None:
        self.closed()

    def closed(self) -> People:
        """Close the file; return its content at the time of the read."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)
        return self.people

    def changed(self) -> bool:
        """Return whether it was written since it was read, or since :meth:`added`."""
        try:
            return self._stamp() != self._seen
        except OSError:  # closed meanwhile, by the thread that writes
            return False

    def added(self) -> dict[str, str]:
        """Return user name and entry of what was added or changed since it was read."""
        self._seen = self._stamp()
        return {name: entry for name, entry in self._now().entries.items() if self.people.entries.get(name) != entry}

    def _now(self) -> People:
        is_known = self._stamp() == self._known
        return people_in((lines_around_devices if is_known else other_lines)(self._descriptor))

    def _stamp(self) -> Stamp:
        return stamp_of(self._descriptor)


def open_file(path: Path, known: Stamp | None = None) -> Opened | None:
    """Open and read a password file. Return None without a file. ``known`` as for :func:`kept_entries`.

    Raises:
        PasswordFileError: the file cannot be read.
    """
    try:
        return Opened(os.open(path, os.O_RDONLY | os.O_CLOEXEC), known)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PasswordFileError(
            f"the password file {path} cannot be read ({error.strerror}): the gateway's user must be able to read and "
            "write it"
        ) from error


class OperatorAccounts:
    """The accounts that people keep in the password file. They are read before each write, so that none is lost.

    ``mosquitto_passwd`` opens the file, asks for a password, and writes in place. If the gateway replaces the file
    meanwhile, the new account is written into a file that no longer has a name. Replaced files are therefore held open
    for a while, and what is written to them is put back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: Opened | None = None
        self._held: list[Opened] = []
        self._put_back: dict[str, str] = {}
        self._unusable: tuple[str, ...] = ()

    @property
    def caution(self) -> str | None:
        """Return which lines of the file were left out since the start, or None."""
        return LEFT_OUT.format(lines=", ".join(self._unusable), file=self._path) if self._unusable else None

    def read(self, known: Stamp | None = None) -> dict[str, str]:
        """Return user name and entry of each account, also of those that were written to replaced files.

        A bad line is left out: it would keep every revoked token good. ``known`` as for :func:`kept_entries`.

        Raises:
            PasswordFileError: the file cannot be read.
        """
        self._read = open_file(self._path, known)
        people = People() if self._read is None else self._read.people
        if people.unusable:
            self._unusable = people.unusable
            log.error("broker.password_line_left_out", message=self.caution)
        for each in self._held:
            if each.changed():
                self._put_back |= each.added()
        if self._put_back:
            log.warning("broker.accounts_restored", accounts=sorted(self._put_back), file=str(self._path))
        return people.entries | self._put_back

    def written(self, *, replaced: bool) -> None:
        """Note that the file holds what :meth:`read` returned; ``replaced``: whether the file that was read is gone."""
        found, self._read, self._put_back = self._read, None, {}
        if found is not None and replaced:
            self._held.append(found)
        elif found is not None:
            found.closed()
        while len(self._held) > _MOST_HELD or (self._held and self._held[0].age > _HELD_SECONDS):
            self._held.pop(0).closed()

    def wrote(self) -> bool:
        """Return whether another process has written to a replaced file since :meth:`read`."""
        return any(each.changed() for each in list(self._held))


def without_lost(kept: dict[str, str]) -> dict[str, str]:
    """Drop accounts that the gateway made and the registry does not know: a restore has forgotten them.

    Nothing could revoke them. ``mosquitto_passwd`` writes other entries, so what people made stays.
    """
    lost = [name for name, entry in kept.items() if account_sql.may_be_named(name) and entry.startswith(OWN_FORM)]
    if lost:
        log.warning("broker.unknown_accounts_dropped", accounts=lost)
    return {name: entry for name, entry in kept.items() if name not in lost}


def own_entry(password: str, known: str | None) -> str:
    """Return the entry for a password: the known one where it is right, since a changed entry cuts the client."""
    if known is not None and _opens(known, password):
        return known
    return broker_entry(password, os.urandom(SALT_BYTES))


def _opens(entry: str, password: str) -> bool:
    salt = salt_of(entry)
    return salt is not None and hmac.compare_digest(broker_entry(password, salt).encode(), entry.encode())
