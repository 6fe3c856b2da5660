"""Mosquitto's password file, kept in step with the registry, and the signal that makes the broker read it.

It has one line per user that may connect. On SIGHUP the broker reads the file again, cuts every client whose line is
gone or changed, and keeps the others. Measurements: docs/mosquitto.md.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import signal
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.broker.mosquitto.password_draft import PasswordDraft
from gateway.broker.mosquitto.password_lines import MISSING, Stamp
from gateway.core import credentials
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

FILE_MODE: Final = 0o640
"""The gateway writes, the broker reads by its group, no other user may read."""

SIGNAL_SPACING_SECONDS: Final = 0.3
"""Mosquitto 2.0 forgets a SIGHUP that arrives while it handles the one before, and with it a revocation.

It checks for the signal at least every 100 ms, and needs 25 ms with 10,000 users."""

SALT_BYTES: Final = 12
OWN_FORM: Final = "$6$"
"""Begin of an entry that the gateway made. Those of ``mosquitto_passwd`` begin with $7$."""
_USERNAME: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_.@-]{1,128}")  # a person's choice, but no wildcard, level or colon
_ENTRY: Final = re.compile(
    r"\$(6|7\$[0-9]{1,9})"  # one round of SHA-512, or PBKDF2 as mosquitto_passwd makes it
    r"\$[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{86}=="  # salt and hash of 12 and 64 bytes: Mosquitto takes no others
)
_DEVICE_LINES: Final = re.compile(rf"(?:{_USERNAME.pattern}+:{_ENTRY.pattern}\n)*+")
"""A user name is followed by a colon, which it cannot contain: nothing is tried twice."""
_HIGHEST_PID: Final = 1 << 22  # PID_MAX_LIMIT of 64-bit Linux
_PROCESS_NAME: Final = "mosquitto"
_PROC: Final = Path("/proc")
_STARTED: Final = 19
"""The word after the name in ``/proc/PID/stat`` that says when the process was started (proc(5), starttime)."""
_BOOT_ID: Final = _PROC / "sys/kernel/random/boot_id"
_SIGHUP_BIT: Final = 1 << (signal.SIGHUP - 1)


class PasswordFileError(UnavailableError):
    """The password file could not be written; the one before is untouched."""


class PasswordEntryError(PasswordFileError, ValueError):
    """A user name or an entry that must not get into a password file."""


class BrokerSignalError(UnavailableError):
    """The broker could not be made to read its password file again; the message names the remedy."""


def password_entry(secret: str, salt: bytes | None = None) -> str:
    """Return ``secret`` as a password file holds it: ``$6$<base64 salt>$<base64 SHA-512(secret + salt)>``.

    One round of SHA-512 is right for random secrets only, never for a password that a person chose. ``salt`` is random
    when not given, and has 12 bytes: Mosquitto drops a user with any other, with a line in its log.

    Raises:
        ValueError: the salt has another length.
    """
    if salt is not None and len(salt) != SALT_BYTES:
        raise ValueError(f"a salt for Mosquitto has {SALT_BYTES} bytes, not {len(salt)}")
    return credentials.broker_entry(secret, os.urandom(SALT_BYTES) if salt is None else salt)


def salt_of(entry: str) -> bytes | None:
    """Return the salt of an entry in the gateway's own form, or None where it has none."""
    _, _, rest = entry.partition(OWN_FORM)
    with contextlib.suppress(ValueError):
        salt = base64.b64decode(rest.partition("$")[0], validate=True)
        return salt if len(salt) == SALT_BYTES else None
    return None


class PasswordFile:
    """The ``password_file`` of one Mosquitto.

    ``fixed`` are the users that are no devices (user name to entry: the gateway's own, integrators). ``pid_file`` is
    the broker's. Without it another process has to reload the broker when the file changes, and `reload` does nothing.
    ``ask_for_reload`` makes another process signal the broker (:mod:`gateway.broker.mosquitto.reloader`).

    The methods block: 10,000 users take 20 ms to write, and `reload` keeps a distance between signals. Call them in a
    thread, those that write in one thread at a time.
    """

    def __init__(
        self,
        path: Path,
        *,
        pid_file: Path | None,
        fixed: Mapping[str, str],
        ask_for_reload: Callable[[], None] | None = None,
    ) -> None:
        self.path = path
        self._ask_for_reload = ask_for_reload
        self.pid_file = pid_file
        self.fixed = dict(fixed)
        self.written: Stamp | None = None
        """What :meth:`stamp` returned after the last :meth:`write`."""
        self.known: Stamp | None = None
        """Stamp of the file that the registry has noted (:mod:`gateway.broker.mosquitto.file_record`)."""
        self._signalled = -math.inf
        self._signalling = threading.Lock()

    def write(self, entries: Iterable[tuple[str, str]]) -> bool:
        """Make the file say exactly ``fixed`` and ``entries`` (user name, ``$6$`` entry), in one atomic step.

        Return False, and change nothing, when it says so already. The mode becomes 0640, the group stays.

        Raises:
            PasswordEntryError: a user name or an entry could smuggle in another line or another user's topics, or a
                user is there twice.
            PasswordFileError: the file cannot be written.
        """
        with self.draft(self.fixed) as draft:
            draft.add_devices(sorted(entries))
            draft.finish(self.fixed)
            return self.put(draft)

    @contextlib.contextmanager
    def draft(self, accounts: Mapping[str, str]) -> Iterator[PasswordDraft]:
        """Yield a draft of the file with these accounts that are no devices. After :meth:`put` it is the file.

        Raises:
            PasswordEntryError: as :meth:`write`.
            PasswordFileError: as :meth:`write`.
        """
        with self._translated(), PasswordDraft(self.path, accounts, partial(_lines, accounts), self._prepare) as draft:
            yield draft

    def put(self, draft: PasswordDraft) -> bool:
        """Replace the file by the finished draft, in one atomic step. Return False when it says so already.

        Raises:
            PasswordFileError: the file cannot be written.
        """
        with self._translated():
            changed = draft.put()
            self.written = self.stamp()
        return changed

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PasswordFileError(
                f"the password file {self.path} cannot be written ({error.strerror}): its directory must be writable "
                "for the gateway's user, and that user a member of the file's group"
            ) from error

    def stamp(self) -> Stamp:
        """Return a value that changes whenever the file is written, or :data:`MISSING` without a file."""
        try:
            found = self.path.stat()
        except OSError:
            return MISSING
        return found.st_ino, found.st_mtime_ns, found.st_size

    def broker_process(self) -> str | None:
        """Return the broker's process number and start time, or None when they cannot be read."""
        with contextlib.suppress(OSError, ValueError, IndexError, BrokerSignalError):
            if self.pid_file is not None:
                pid = _pid_in(self.pid_file)
                boot = _BOOT_ID.read_text(encoding="ascii").strip()
                facts = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
                return f"{boot}/{pid}/{facts.rpartition(') ')[2].split()[_STARTED]}"
        return None

    def reload(self) -> None:
        """Send SIGHUP to the broker, after checking that it is one and that it handles the signal.

        It first waits until SIGNAL_SPACING_SECONDS have passed since the last signal.

        Raises:
            BrokerSignalError: the signal was not sent; the message names the remedy.
        """
        if self.pid_file is None and self._ask_for_reload is None:
            return
        with self._signalling:
            time.sleep(max(0.0, self._signalled + SIGNAL_SPACING_SECONDS - time.monotonic()))
            if self._ask_for_reload is not None:
                self._ask_for_reload()
            elif self.pid_file is not None:
                _hang_up(_pid_in(self.pid_file), self.pid_file)
            self._signalled = time.monotonic()

    @property
    def is_signalled(self) -> bool:
        """Return whether :meth:`reload` reaches the broker."""
        return self.pid_file is not None or self._ask_for_reload is not None

    def _prepare(self, descriptor: int) -> None:
        self._keep_group(descriptor)
        os.fchmod(descriptor, FILE_MODE)

    def _keep_group(self, descriptor: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            group = self.path.stat().st_gid
            if os.fstat(descriptor).st_gid != group:
                os.fchown(descriptor, -1, group)


def _lines(accounts: Mapping[str, str], users: Sequence[tuple[str, str]], last: str | None) -> bytes:
    """Return the lines of these users: of devices that follow the device ``last``, or of accounts where it is None."""
    if last is None:
        for name, entry in users:
            _check(name, entry, _ACCOUNT, "A-Z a-z 0-9 _ . @ -")
    text = "".join(f"{name}:{entry}\n" for name, entry in users)
    if last is not None:
        _check_devices(accounts, users, last, text)
    return text.encode()


def _check_devices(accounts: Mapping[str, str], users: Sequence[tuple[str, str]], last: str, text: str) -> None:
    """Check the lines of many devices at once; take them apart to say which is wrong."""
    if text.count("\n") != len(users) or not _DEVICE_LINES.fullmatch(text):
        for name, entry in users:
            _check(name, entry, _USERNAME, "A-Z a-z 0-9 _")
    names = [name for name, _ in users]
    for before, name in pairwise((last, *names)):
        if before >= name or name in accounts:
            raise PasswordEntryError(f"user name {name} is there twice, or not in the order of names")


def is_account_name(username: str) -> bool:
    """Return whether an account that is no device may have this name."""
    return _ACCOUNT.fullmatch(username) is not None


def is_account(username: str, entry: str) -> bool:
    """Return whether a password file may hold this user with this entry."""
    return is_account_name(username) and _ENTRY.fullmatch(entry) is not None


def _check(username: str, entry: str, names: re.Pattern[str], allowed: str) -> None:
    if not names.fullmatch(username):
        raise PasswordEntryError(f"user name {username!r} should be 1 to 128 of {allowed}")
    if not _ENTRY.fullmatch(entry):
        raise PasswordEntryError(
            f"the password entry of {username} should be $6$salt$hash or, from mosquitto_passwd, $7$rounds$salt$hash"
        )


def _pid_in(pid_file: Path) -> int:
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except OSError as error:
        raise BrokerSignalError(
            f"the pid file {pid_file} cannot be read ({error.strerror}): start Mosquitto with `pid_file {pid_file}` in "
            "its configuration, in a directory that the gateway's user may enter, or let mosquitto_pid_file name the "
            "one that it writes"
        ) from error
    except ValueError as error:
        raise BrokerSignalError(f"{pid_file} holds no process id: is it Mosquitto's pid file?") from error
    if not 0 < pid <= _HIGHEST_PID:
        raise BrokerSignalError(f"{pid_file} holds {pid}, which is no broker: is it Mosquitto's pid file?")
    return pid


def _hang_up(pid: int, pid_file: Path) -> None:
    """Open the process first, then check it, then signal the open one: a process id is soon used again."""
    try:
        process = os.pidfd_open(pid)
    except OSError as error:
        raise BrokerSignalError(_gone(pid, pid_file)) from error
    try:
        _check_ready(pid, pid_file)
        signal.pidfd_send_signal(process, signal.SIGHUP)
    except PermissionError as error:
        raise BrokerSignalError(
            f"Mosquitto (process {pid}) may not be signalled by this user: run the gateway as the broker's user, "
            "or let 'gateway broker reloader' do it (mosquitto_reload_socket), or give it the capability CAP_KILL"
        ) from error
    except OSError as error:
        raise BrokerSignalError(_gone(pid, pid_file)) from error
    finally:
        os.close(process)


def _check_ready(pid: int, pid_file: Path) -> None:
    """Refuse a process that SIGHUP would end: another program, or a broker that is not up yet."""
    facts = _process_facts(pid)
    if facts["Name"] != _PROCESS_NAME:
        raise BrokerSignalError(
            f"process {pid} of {pid_file} is {facts['Name']!r}, not {_PROCESS_NAME}: the file is left from an earlier "
            "run, or is another program's; start Mosquitto, or let mosquitto_pid_file name its pid file"
        )
    if not int(facts["SigCgt"], 16) & _SIGHUP_BIT:
        raise BrokerSignalError(f"Mosquitto (process {pid}) is starting and does not take SIGHUP yet: try again")


def _process_facts(pid: int) -> dict[str, str]:
    """Return ``/proc/PID/status``; its Name is what ``/proc/PID/comm`` says."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:  # noqa: PTH123 - no path to keep
        return {key: value.strip() for key, _, value in (line.partition(":") for line in status)}


def _gone(pid: int, pid_file: Path) -> str:
    return f"process {pid} of {pid_file} is gone: start Mosquitto (it reads its password file when it starts)"
