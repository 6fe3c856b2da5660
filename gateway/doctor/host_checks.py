"""The machine's side: settings, data directory, registry, clock, limits. Nothing is changed, not even a file time."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.core.clock import system_clock, to_rfc3339
from gateway.core.text import count
from gateway.doctor.findings import Area, Finding, Level
from gateway.domain import epoch
from gateway.errors import StoreError, UnavailableError
from gateway.runtime import build_info
from gateway.runtime.sealing import require_same, vault_of
from gateway.settings.loading import FIELDS, written
from gateway.store import DATABASE_NAME, View, account_sql, epoch_sql, gauge_sql, key_sql, secret_sql
from gateway.store.schema import from_a_newer_gateway, missing, newest_applied
from gateway.store.sqlite.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.loading import Loaded

SETTINGS, DATA, REGISTRY, CLOCK, LIMITS = (
    Area(name) for name in ("settings", "data directory", "registry", "clock", "limits")
)
FREE_ERROR_BYTES: Final = 100_000_000
FREE_WARNING_BYTES: Final = 1_000_000_000
WAL_WARNING_BYTES: Final = 256_000_000
THOROUGH_BELOW_BYTES: Final = 2_000_000_000
OUTBOX_WARNING_SECONDS: Final = 60
EPOCH_WARNING_MS: Final = 7 * 86_400_000
FUTURE_MS: Final = 5_000
OLDEST_CLOCK_MS: Final = 1_764_547_200_000  # 2025-12-01: this program is younger
FILES_PER_STREAM: Final = 256
PYTHON_FLOORS: Final = {(3, 11): 5, (3, 12): 9, (3, 13): 2}
"""Patch level that mends CVE-2023-40217 (ssl), and for 3.12 and 3.13 CVE-2024-12254 (asyncio takes memory)."""
_OF_THE_DISTRIBUTION: Final = "/usr"
_SECRET_MODE: Final = 0o077
_REMOUNT: Final = (
    "See why ('dmesg', 'findmnt'): a disk with errors is mounted so. Then remount it writable. Nothing is lost."
)
_THOUSAND: Final = 1_000
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES: Final = 512


def settings(loaded: Loaded) -> Iterator[Finding]:
    """Which settings are in force, and where those that are no default come from."""
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
    """Has this Python the mends that matter for a server? A distribution mends its own under the old number."""
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
    """Is it there, whose is it, who may look inside, is there room?"""
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
        return DATA.error("writable", f"the disk of {directory} is mounted read-only", _REMOUNT)
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
    says, remedy = f"{_bytes(free)} are free", f"Make room on the disk of {directory}, or keep less history."
    if free < FREE_ERROR_BYTES:
        return DATA.error("free space", says, remedy)
    return DATA.warning("free space", says, remedy) if free < FREE_WARNING_BYTES else DATA.ok("free space", says)


def registry(directory: Path, key_file: Path | None) -> Iterator[Finding]:
    """Is the database whole, of this version, and is its log short?"""
    file = directory / DATABASE_NAME
    if not file.exists():
        yield REGISTRY.error(
            "file",
            f"there is no {file}",
            "'gateway serve' makes a new one; a backup is put back with 'gateway restore'.",
        )
        return
    try:
        with closing(connect(file, read_only=True)) as connection:
            yield from _inside(View(connection), file, key_file)
    except (StoreError, sqlite3.Error) as error:
        yield _unreadable(file, error)


def _encryption(view: View, key_file: Path | None) -> Finding:
    """Are signing keys and webhook secrets encrypted, and does the setting's key open them?"""
    known = secret_sql.key_id(view)
    try:
        require_same(known, vault_of(key_file).key_id)
    except UnavailableError as error:
        return REGISTRY.error(
            "encryption",
            error.message,
            "The gateway does not start like this. 'gateway secrets status' tells the keys.",
        )
    return REGISTRY.ok(
        "encryption", "signing keys and webhook secrets lie in the clear" if known is None else f"under the key {known}"
    )


def _epoch(view: View) -> Iterator[Finding]:
    """When and why the present epoch began, if it is not the first."""
    began_at, reason = epoch_sql.began_at(view), epoch_sql.reason(view)
    if not began_at:
        return
    says = f"an epoch began at {to_rfc3339(began_at)}: {reason}"
    if reason == epoch.RESTORED or system_clock() - began_at > EPOCH_WARNING_MS:
        yield REGISTRY.ok("epoch", says)
        return
    yield REGISTRY.warning(
        "epoch",
        says,
        "What happened after the copy was made is not in it: see which devices have to be bound or reset again "
        "('gateway docs runbook').",
    )


def _unreadable(file: Path, error: Exception) -> Finding:
    """Only a file that is damaged wants a backup: on a read-only disk a whole one cannot be opened either."""
    cause = error.__cause__ if isinstance(error.__cause__, sqlite3.Error) else error
    damaged = getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    if damaged:
        remedy = "Stop the gateway, keep a copy of the directory, and put the last backup back: gateway restore FILE."
    elif is_read_only(file.parent):
        remedy = f"The disk of {file.parent} is mounted read-only, so SQLite cannot open its log. {_REMOUNT}"
    else:
        remedy = "Check that this user may read and write the file and its directory, and that the disk has room."
    return REGISTRY.error("readable", f"{file} cannot be read ({cause})", remedy)


def is_read_only(directory: Path) -> bool:
    """Whether the file system of this directory is mounted read-only."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _inside(view: View, file: Path, key_file: Path | None) -> Iterator[Finding]:
    size = file.stat().st_size
    yield _integrity(view, size)
    schema = _schema(view)
    yield schema
    yield _wal(file.with_name(f"{file.name}-wal"))
    if schema.level is not Level.OK:
        return  # its tables may be others than the following looks at
    yield from _epoch(view)
    fleet = gauge_sql.fleet(view)
    yield REGISTRY.ok(
        "contents", f"{count(fleet.devices, 'device')}, {fleet.bound} bound, {fleet.online} online; {_bytes(size)}"
    )
    yield _encryption(view, key_file)
    yield from _accounts(view)
    yield from _waiting(view)
    yield _api_keys(view)
    yield _mqtt_passwords(fleet.without_mqtt_password)
    yield from _future(view)


def _accounts(view: View) -> Iterator[Finding]:
    """Which accounts at the broker read all projects, where there are several."""
    names, projects = account_sql.reading_all(view), len(key_sql.projects(view))
    if names and projects > 1:
        yield REGISTRY.ok("accounts", f"{', '.join(names)} {'read' if names[1:] else 'reads'} all {projects} projects")


def _integrity(view: View, size: int) -> Finding:
    check = "integrity_check" if size < THOROUGH_BELOW_BYTES else "quick_check"
    problems = [str(row[0]) for row in view.all(f"PRAGMA {check}(10)")]
    orphans = view.all("PRAGMA foreign_key_check")
    if problems != ["ok"] or orphans:
        told = [
            *(each for each in problems if each != "ok"),
            *(f"{row[0]} row {row[1]} has no {row[2]}" for row in orphans[:10]),
        ]
        return REGISTRY.error(
            "integrity",
            "the database is damaged",
            "Stop the gateway, keep a copy of the directory, and put the last backup back: gateway restore FILE.",
            *told,
        )
    return REGISTRY.ok("integrity", f"{check} and foreign keys hold")


def _schema(view: View) -> Finding:
    newest = newest_applied(view.connection)
    if newer := from_a_newer_gateway(view.connection):
        return REGISTRY.error(
            "schema",
            f"it was written by a newer gateway (it has {newer})",
            "Install that version, and restart the gateway with it ('gateway docs upgrading').",
        )
    if wanting := missing(view.connection):
        return REGISTRY.warning(
            "schema",
            f"{newest}, of an older version; {count(len(wanting), 'step')} missing, the first {wanting[0]}",
            "Restart the gateway with this version, which applies them after a copy ('gateway docs upgrading').",
        )
    return REGISTRY.ok("schema", f"{newest}, of this version")


def has_own_schema(directory: Path) -> bool:
    """Whether the registry can be read and has the schema of this version."""
    try:
        with closing(connect(directory / DATABASE_NAME, read_only=True)) as connection:
            return not (from_a_newer_gateway(connection) or missing(connection))
    except (StoreError, sqlite3.Error):
        return False


def _wal(file: Path) -> Finding:
    size = file.stat().st_size if file.exists() else 0
    if size > WAL_WARNING_BYTES:
        return REGISTRY.warning(
            "write-ahead log",
            f"it has {_bytes(size)}",
            "Something reads without end, or the disk cannot keep up. A backup tool on the live file "
            "does that: use 'gateway backup'.",
        )
    return REGISTRY.ok("write-ahead log", _bytes(size))


def _waiting(view: View) -> Iterator[Finding]:
    now = system_clock()
    rows = gauge_sql.outbox(view)
    oldest = max((max(0, now - since) // 1_000 for _, _, since in rows), default=0)
    says = f"{sum(count for _, count, _ in rows)} wait, the oldest for {oldest} s"
    if oldest > OUTBOX_WARNING_SECONDS:
        yield REGISTRY.warning("outbox", says, "It goes out once a gateway runs and has its broker.")
    else:
        yield REGISTRY.ok("outbox", says)
    resets = [each for each in gauge_sql.open_commands(view) if each.type == "factory_reset"]
    if resets:
        since = min(each.oldest_at for each in resets)
        yield REGISTRY.ok("resets", f"{sum(each.number for each in resets)} open, the oldest since {to_rfc3339(since)}")


def _api_keys(view: View) -> Finding:
    """Which keys end soon: whoever uses one is refused then."""
    rows = key_sql.expiring(view, system_clock())
    if not rows:
        return REGISTRY.ok("API keys", "none expires soon")
    return REGISTRY.warning(
        "API keys",
        f"{count(len(rows), 'key')} will expire soon",
        "Give each more time (gateway keys expire KEY --in 90d), or make its successor (gateway keys create).",
        *(f"{row['id']} ('{row['name']}') of {row['project']} at {to_rfc3339(row['expires_at'])}" for row in rows),
    )


def _mqtt_passwords(former: int) -> Finding:
    """How many devices show their token to the broker, as all did before MQTT passwords."""
    if former:
        return REGISTRY.warning(
            "MQTT passwords",
            f"{count(former, 'device')} with a token from before MQTT passwords, which the broker is shown",
            "Have them refresh their tokens (POST /v1/devices/me/token/refresh), with firmware that connects with "
            "mqtt.password of the answer ('gateway docs upgrading'), or bind them again.",
        )
    return REGISTRY.ok("MQTT passwords", "no device shows its token to the broker")


def _future(view: View) -> Iterator[Finding]:
    newest = view.value("SELECT max(created_at) FROM (SELECT created_at FROM events ORDER BY seq DESC LIMIT 100)") or 0
    ahead = newest - system_clock()
    if ahead > FUTURE_MS:
        yield CLOCK.error(
            "set back",
            f"the newest event is {ahead // 1_000} s in the future",
            "The clock was ahead, or was set back. Set it right (timedatectl), and let NTP keep it.",
        )


def clock() -> Iterator[Finding]:
    """Is it plausible, and does somebody keep it right?"""
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
    """What the kernel says; ``None`` where it cannot be asked."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def limits(pid: int, name: str, needed: int) -> Finding:
    """May this process open as many files as the fleet needs?"""
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


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < _THOUSAND:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _THOUSAND
    return f"{number:.1f} TB"
