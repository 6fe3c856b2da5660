"""Checks of the machine: settings, data directory, clock, limits. Nothing is changed, not even a file time."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.core.clock import system_clock, to_rfc3339
from gateway.doctor.findings import Area, Finding
from gateway.runtime import build_info
from gateway.settings.loading import FIELDS, written
from gateway.store import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.loading import Loaded

SETTINGS, DATA, REGISTRY, CLOCK, LIMITS = (
    Area(name) for name in ("settings", "data directory", "registry", "clock", "limits")
)
FREE_ERROR_BYTES: Final = 100_000_000
FREE_WARNING_BYTES: Final = 1_000_000_000
OLDEST_CLOCK_MS: Final = 1_764_547_200_000  # 2025-12-01: this program is younger
FILES_PER_STREAM: Final = 256
PYTHON_FLOORS: Final = {(3, 11): 5, (3, 12): 9, (3, 13): 2}
"""Patch levels that fix CVE-2023-40217 (ssl), and for 3.12 and 3.13 CVE-2024-12254 (memory use of asyncio)."""
_OF_THE_DISTRIBUTION: Final = "/usr"
_SECRET_MODE: Final = 0o077
REMOUNT: Final = (
    "See why ('dmesg', 'findmnt'): a disk with errors is mounted so. Then remount it writable. Nothing is lost."
)
_THOUSAND: Final = 1_000
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 512


def settings(loaded: Loaded) -> Iterator[Finding]:
    """Report which settings are in force, and the sources of those that are no default."""
    chosen = [name for name in FIELDS if loaded.sources[name] != "default"]
    told = [f"{name} = {written(getattr(loaded.settings, name))} ({loaded.sources[name]})" for name in chosen]
    source = f"file: {loaded.config_file}" if loaded.config_file else "no file"
    yield Finding(
        SETTINGS.name,
        "values",
        SETTINGS.ok("", "").level,
        f"{len(FIELDS)} settings, {len(chosen)} of them chosen; {source}",
        details=tuple(told),
    )
    for warning in loaded.warnings:
        yield SETTINGS.warning("warning", warning, "'gateway config' shows what is set, and by what.")
    yield SETTINGS.ok(
        "versions",
        f"gateway {build_info.described()}, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}",
    )
    yield python(sys.version_info[:3], sys.base_prefix)


def python(version: tuple[int, int, int], base: str) -> Finding:
    """Check that this Python has the fixes that matter for a server.

    A distribution fixes its own Python under the old number.
    """
    told = ".".join(map(str, version))
    floor = PYTHON_FLOORS.get(version[:2], 0)
    wanted = f"{version[0]}.{version[1]}.{floor}"
    if version[2] >= floor or base == _OF_THE_DISTRIBUTION:
        return SETTINGS.ok("Python", told)
    return SETTINGS.warning(
        "Python",
        f"{told} has known weaknesses in ssl or asyncio that {wanted} mends",
        f"Install Python {wanted} or newer, make the environment anew, and restart the gateway.",
    )


def data_directory(directory: Path) -> Iterator[Finding]:
    """Check that it exists, its owner, its mode and its free space."""
    if not directory.is_dir():
        yield DATA.error(
            "directory", f"{directory} is not there", "Name the right one with --data-dir, or start the gateway."
        )
        return
    yield _permissions(directory)
    yield _writable(directory)
    yield _room(shutil.disk_usage(directory).free, directory)


def _permissions(directory: Path) -> Finding:
    names = [directory, *(path for path in directory.iterdir() if path.name.startswith(DATABASE_NAME))]
    open_ = [path for path in names if stat.S_IMODE(path.stat().st_mode) & _SECRET_MODE]
    if open_:
        return DATA.error(
            "permissions",
            "others may look into what holds signing keys",
            f"chmod go-rwx {' '.join(str(path) for path in open_)}",
        )
    return DATA.ok("permissions", f"{directory} is its owner's alone")


def _writable(directory: Path) -> Finding:
    if is_read_only(directory):
        return DATA.error("writable", f"the disk of {directory} is mounted read-only", REMOUNT)
    if not os.access(directory, os.W_OK):
        return DATA.error(
            "writable",
            f"this user ({os.geteuid()}) may not write there",
            "Run the doctor as the gateway's user; if it is, chown the directory to it.",
        )
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        return DATA.warning(
            "owner",
            f"{directory} belongs to user {owner}, and this is {os.geteuid()}",
            "Run the doctor as the gateway's user, to see what that one sees.",
        )
    return DATA.ok("writable", f"user {owner} may write")


def _room(free: int, directory: Path) -> Finding:
    says, remedy = f"{size_text(free)} are free", f"Make room on the disk of {directory}, or keep less history."
    if free < FREE_ERROR_BYTES:
        return DATA.error("free space", says, remedy)
    return DATA.warning("free space", says, remedy) if free < FREE_WARNING_BYTES else DATA.ok("free space", says)


def is_read_only(directory: Path) -> bool:
    """Return whether the file system of this directory is mounted read-only."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def clock() -> Iterator[Finding]:
    """Check that the clock is plausible and synchronised."""
    now = system_clock()
    if now < OLDEST_CLOCK_MS:
        yield CLOCK.error("time", f"it says {to_rfc3339(now)}", "Set the clock: expiry and grants go by it.")
    elif _synchronised() is False:
        yield CLOCK.warning(
            "synchronised",
            f"{to_rfc3339(now)}, and the kernel says that nobody keeps it right",
            "Install an NTP client, for example: apt-get install systemd-timesyncd.",
        )
    else:
        yield CLOCK.ok("time", to_rfc3339(now))


def _synchronised() -> bool | None:
    """Return what the kernel says, or None where it cannot be asked."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def limits(pid: int, name: str, needed: int) -> Finding:
    """Check that this process may open as many files as the fleet needs."""
    soft = _open_files(pid)
    if soft is None:
        return LIMITS.warning(name, f"those of process {pid} cannot be read", "Run the doctor as the gateway's user.")
    if soft < needed:
        return LIMITS.warning(
            name,
            f"{soft} allowed, and {needed} may be needed",
            "Raise the limit (systemd: LimitNOFILE=65536; shell: ulimit -n 65536) and restart the gateway.",
        )
    return LIMITS.ok(name, f"{soft} allowed")


def _open_files(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split()[3] for line in lines if line.startswith("Max open files")), "")
    return sys.maxsize if found == "unlimited" else int(found) if found else None


def size_text(number: float) -> str:
    """Return a number of bytes as people read it: 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < _THOUSAND:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _THOUSAND
    return f"{number:.1f} TB"
