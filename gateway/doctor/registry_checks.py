"""Checks of the registry: whether it is whole and of this version, and what waits in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.core.clock import DAY_MS, SECOND_MS, system_clock, to_rfc3339
from gateway.core.text import count
from gateway.doctor.findings import Finding, Level
from gateway.doctor.host_checks import CLOCK, REGISTRY, REMOUNT, is_read_only, size_text
from gateway.domain import epoch
from gateway.errors import StoreError, UnavailableError
from gateway.runtime.sealing import require_same, vault_of
from gateway.store import (
    DATABASE_NAME,
    View,
    account_sql,
    broker_sql,
    device_count_sql,
    epoch_sql,
    gauge_sql,
    home_sql,
    job_sql,
    job_target_sql,
    key_sql,
    open_reader,
    secret_sql,
    signing_key_sql,
)
from gateway.store.errors import DATABASE_ERRORS
from gateway.store.schema import from_a_newer_gateway, missing, newest_applied
from gateway.store.sqlite.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.location import Location

WAL_WARNING_BYTES: Final = 256_000_000
THOROUGH_BELOW_BYTES: Final = 2_000_000_000
OUTBOX_WARNING_SECONDS: Final = 60
EPOCH_WARNING_MS: Final = 7 * DAY_MS
FUTURE_MS: Final = 5_000


def registry(directory: Path, key_file: Path | None) -> Iterator[Finding]:
    """Check that the database is intact, of this version, and that its log is short."""
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
    """Check whether signing keys and webhook secrets are encrypted, and that the setting's key opens them."""
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
    """Report when and why the present epoch began, if it is not the first."""
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
    """Report a file that cannot be read. Only a damaged one needs a backup; on a read-only disk none can be opened."""
    cause = error.__cause__ if isinstance(error.__cause__, sqlite3.Error) else error
    damaged = getattr(cause, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    if damaged:
        remedy = "Stop the gateway, keep a copy of the directory, and put the last backup back: gateway restore FILE."
    elif is_read_only(file.parent):
        remedy = f"The disk of {file.parent} is mounted read-only, so SQLite cannot open its log. {REMOUNT}"
    else:
        remedy = "Check that this user may read and write the file and its directory, and that the disk has room."
    return REGISTRY.error("readable", f"{file} cannot be read ({cause})", remedy)


def _inside(view: View, file: Path, key_file: Path | None) -> Iterator[Finding]:
    size = file.stat().st_size
    yield _integrity(view, size)
    schema = schema_version(view)
    yield schema
    yield _wal(file.with_name(f"{file.name}-wal"))
    if schema.level is not Level.OK:
        return  # its tables may differ from those that the next checks read
    yield from contents(view, size, key_file)


def contents(view: View, size: int, key_file: Path | None) -> Iterator[Finding]:
    """Check what is in a registry of this version, on either engine; its size is in bytes."""
    yield from _epoch(view)
    fleet = gauge_sql.fleet(view)
    yield REGISTRY.ok(
        "contents", f"{count(fleet.devices, 'device')}, {fleet.bound} bound, {fleet.online} online; {size_text(size)}"
    )
    yield _encryption(view, key_file)
    yield from _accounts(view)
    yield from _waiting(view)
    yield from _brokers(view)
    yield _api_keys(view)
    yield _mqtt_passwords(fleet.without_mqtt_password)
    yield _leaked_keys(view)
    yield _counts(view)
    yield _jobs(view)
    yield from _future(view)


def _accounts(view: View) -> Iterator[Finding]:
    """Report which accounts at the broker read all projects, where there are several."""
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


def schema_version(view: View) -> Finding:
    """Check that the tables are those of this version."""
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
            "Restart the gateway with this version, which applies them ('gateway docs upgrading').",
        )
    return REGISTRY.ok("schema", f"{newest}, of this version")


def has_own_schema(location: Location) -> bool:
    """Return whether the registry can be read and has the schema of this version."""
    try:
        with closing(open_reader(location)) as connection:
            return not (from_a_newer_gateway(connection) or missing(connection))
    except (StoreError, *DATABASE_ERRORS):
        return False


def _wal(file: Path) -> Finding:
    size = file.stat().st_size if file.exists() else 0
    if size > WAL_WARNING_BYTES:
        return REGISTRY.warning(
            "write-ahead log",
            f"it has {size_text(size)}",
            "Something reads without end, or the disk cannot keep up. A backup tool on the live file "
            "does that: use 'gateway backup'.",
        )
    return REGISTRY.ok("write-ahead log", size_text(size))


def _brokers(view: View) -> Iterator[Finding]:
    """Report the brokers without a gateway, where there are several."""
    every, homes = broker_sql.brokers(view, system_clock()), home_sql.counted(view)
    if any(each.devices != homes.get(each.pk, 0) for each in every):
        yield REGISTRY.error(
            "home brokers",
            "the kept numbers of devices differ from their homes, so binds choose the wrong broker",
            "Count again with 'gateway registry recount'.",
        )
    if not every[1:]:
        return
    for each in every:
        if each.owner is None:
            yield REGISTRY.warning(
                "brokers",
                f"no gateway serves the broker '{each.id}'",
                f"Start a gateway with --broker-id {each.id}. If the broker is gone: 'gateway registry forget-broker "
                f"{each.id}'.",
            )
        if each.owner is None and each.devices:
            yield REGISTRY.warning(
                "home brokers",
                f"{count(each.devices, 'device')} can connect to the broker '{each.id}' alone",
                f"Start its gateway. If the broker is gone, move them: 'gateway cells move --all-from {each.id} --to "
                "BROKER'.",
            )
    if all(each.owner is not None for each in every):
        yield REGISTRY.ok("brokers", f"{len(every)}, each with a gateway")


def _waiting(view: View) -> Iterator[Finding]:
    now = system_clock()
    rows = gauge_sql.outbox(view)
    oldest = max((max(0, now - since) // SECOND_MS for _, _, since in rows), default=0)
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
    """Report which keys expire soon: their users are refused then."""
    rows = key_sql.expiring(view, system_clock())
    if not rows:
        return REGISTRY.ok("API keys", "none expires soon")
    return REGISTRY.warning(
        "API keys",
        f"{count(len(rows), 'key')} will expire soon",
        "Give each more time (gateway keys expire KEY --in 90d), or make its successor (gateway keys create).",
        *(f"{row.id} ('{row.name}') of {row.project} at {to_rfc3339(row.expires_at)}" for row in rows),
    )


def _leaked_keys(view: View) -> Finding:
    """Report how many devices obey a signing key that others know."""
    devices = sum(key.devices for key in signing_key_sql.signing_keys(view) if key.leaked_at is not None)
    if devices:
        return REGISTRY.warning(
            "signing keys",
            f"{count(devices, 'device')} with a signing key that leaked",
            "Have them bound and provisioned again. 'gateway signing-keys list' shows the key, and "
            "'gateway signing-keys devices KID' the devices ('gateway docs runbook').",
        )
    return REGISTRY.ok("signing keys", "no device obeys one that leaked")


def _counts(view: View) -> Finding:
    """Report projects whose kept counts or states of devices differ from their devices."""
    wrong = device_count_sql.wrong(view)
    if wrong:
        return REGISTRY.error(
            "counts",
            f"{count(len(wrong), 'project')} with kept counts or states that are not those of the devices",
            "The rows were changed by another program, or this is a bug: report it. 'gateway registry recount' counts "
            "again, also while a gateway runs.",
            *wrong,
        )
    return REGISTRY.ok("counts", "the kept counts of devices are right")


def _jobs(view: View) -> Finding:
    """Report jobs whose counts differ from the outcomes of their targets."""
    wrong = job_target_sql.miscounted(view)
    if wrong:
        return REGISTRY.error(
            "jobs",
            f"{count(len(wrong), 'job')} with counts that are not those of the targets",
            "The rows were changed by another program, or this is a bug: report it. GET /v1/jobs/{id}/devices tells "
            "what became of each device.",
            *wrong,
        )
    return REGISTRY.ok("jobs", f"{sum(job_sql.by_status(view).values())} kept, each with the counts of its targets")


def _mqtt_passwords(former: int) -> Finding:
    """Report how many devices send their token to the broker, as all did before MQTT passwords."""
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
            f"the newest event is {ahead // SECOND_MS} s in the future",
            "The clock was ahead, or was set back. Set it right (timedatectl), and let NTP keep it.",
        )
