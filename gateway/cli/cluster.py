"""``gateway cluster``: the gateways of a registry, who holds which lease, what waits, and the database."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.core.clock import SECOND_MS, system_clock, to_rfc3339
from gateway.errors import StoreError
from gateway.settings import registry
from gateway.store import View, broker_sql, gauge_sql, lease_sql, open_existing, replication_sql
from gateway.store.errors import DATABASE_ERRORS, USED, store_error

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded
    from gateway.store.broker_sql import BrokerRecord
    from gateway.store.lease_sql import GatewayRecord, LeaseRecord
    from gateway.store.location import Location

EPILOG: Final = """\b
Examples:
  gateway cluster
  gateway cluster --watch
  gateway cluster --json | jq '.leases[] | select(.owner == null)'

What each column means, and what a take-over does: 'gateway docs standby'.
"""
EVERY_SECONDS: Final = 1.0
_ROLE: Final = "primary"
"""No other server is asked: a standby is refused when a connection is made."""
_GATEWAYS: Final = ("GATEWAY", "HOST", "HTTP", "BROKER", "VERSION", "STARTED", "SEEN")
_LEASES: Final = ("LEASE", "OWNER", "EPOCH", "TAKEN", "ENDS IN")
_OUTBOX: Final = ("OUTBOX", "ROWS", "OLDEST")
_BROKERS: Final = ("BROKER", "OWNER", "STATE", "ROWS", "OLDEST", "COMPARED")
_STANDBYS: Final = ("STANDBY", "STATE", "SYNC", "LAG MS", "BEHIND")


@click.command(cls=SettingsCommand, name="cluster", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine; with --watch a line a second.")
@click.option("--watch", is_flag=True, help="Print it again each second until Ctrl-C, also when the database was away.")
@with_settings(*registry.NAMES)
def cluster(loaded: Loaded, *, as_json: bool, watch: bool) -> None:
    """See gateways, brokers and leases.

    With each lease: its owner, its epoch and its age. With each broker: its owner, and what waits for it. Then the
    database. It reads the registry, so it works while no gateway runs.
    """
    where = loaded.settings.registry
    if watch:
        _watch(where, as_json=as_json)
    _show(_read(where), as_json=as_json)


def _watch(where: Location, *, as_json: bool) -> NoReturn:
    """Print the report each second. Where it cannot be read, print the reason once, and go on."""
    reason: str | None = None
    while True:
        try:
            found = _read(where)
        except StoreError as error:
            if error.message != reason:
                reason = error.message
                output.note(f"{to_rfc3339(system_clock())} {reason} It is tried again each second.")
        else:
            reason = None
            if not as_json:
                click.clear()
            _show(found, as_json=as_json)
        time.sleep(EVERY_SECONDS)


def _read(where: Location) -> dict[str, Any]:
    with closing(open_existing(where)) as connection:
        try:
            connection.begin_read()
            return report(View(connection), system_clock())
        except DATABASE_ERRORS as error:
            raise store_error(error, USED, again=False) from error
        finally:
            connection.end_read()


def report(view: View, instant: int) -> dict[str, Any]:
    """Return what the command prints as JSON; ``instant`` is this machine's time in milliseconds."""
    now = lease_sql.time_of(view, instant)
    database = replication_sql.state(view)
    return {
        "gateways": [_gateway(each, now) for each in lease_sql.gateways(view)],
        "leases": [_lease(each, now) for each in lease_sql.leases(view)],
        "brokers": _brokers(view, instant, now),
        "outbox": [
            {"kind": kind, "rows": rows, "oldest_seconds": _seconds(max(0, instant - oldest))}
            for kind, rows, oldest in gauge_sql.outbox(view)
        ],
        "database": {
            "engine": database.engine,
            "version": database.version,
            "role": _ROLE,
            "waits_for": database.waits_for,
            "is_stuck": database.is_stuck,
            "standbys": [each._asdict() for each in database.standbys],
        },
    }


def _brokers(view: View, instant: int, now: int) -> list[dict[str, Any]]:
    waiting = gauge_sql.outbox_by_broker(view)
    found = []
    for each in broker_sql.brokers(view, instant):
        rows, since = waiting.get(each.pk, (0, instant))
        found.append(
            {
                "broker_id": each.id,
                "owner": each.owner,
                "state": state_of(each),
                "rows": rows,
                "oldest_seconds": _seconds(max(0, instant - since)),
                "compared_seconds": None if each.compared_at is None else _seconds(now - each.compared_at),
            }
        )
    return found


def state_of(broker: BrokerRecord) -> str:
    """Return ``connected``, ``away``, or ``left out`` after ten minutes away."""
    if broker.left_out_at is not None:
        return "left out"
    return "away" if broker.is_away else "connected"


def _gateway(row: GatewayRecord, now: int) -> dict[str, Any]:
    return {
        "gateway_id": row.gateway_id,
        "host": row.host,
        "http": row.http,
        "broker_id": row.broker_id,
        "version": row.version,
        "started_at": to_rfc3339(row.started_at),
        "seen_seconds": _seconds(now - row.seen_at),
    }


def _lease(row: LeaseRecord, now: int) -> dict[str, Any]:
    left = row.until - now
    return {
        "name": row.name,
        "owner": row.gateway_id if left > 0 else None,
        "epoch": row.epoch,
        "age_seconds": _seconds(now - row.taken_at),
        "ends_in_seconds": _seconds(max(0, left)),
    }


def _seconds(ms: int) -> float:
    return round(ms / SECOND_MS, 1)


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(found)
        return
    database = found["database"]
    output.table(_GATEWAYS, (_cells(each, "seen_seconds") for each in found["gateways"]))
    click.echo()
    output.table(_LEASES, (_cells(each, "age_seconds", "ends_in_seconds") for each in found["leases"]))
    click.echo()
    output.table(_BROKERS, (_cells(each, "oldest_seconds", "compared_seconds") for each in found["brokers"]))
    click.echo()
    output.table(_OUTBOX, (_cells(each, "oldest_seconds") for each in found["outbox"]))
    click.echo(f"\nDatabase: {database['engine']} {database['version']}, {database['role']}")
    if database["standbys"]:
        output.table(_STANDBYS, (list(each.values()) for each in database["standbys"]))
    if database["is_stuck"]:
        output.note(f"Commits wait for a standby ('{database['waits_for']}'), and none is there to confirm them.")
    for each in found["leases"]:
        if each["owner"] is None:
            output.note(f"No gateway holds the lease '{each['name']}' now.")


def _cells(facts: dict[str, Any], *seconds: str) -> list[Any]:
    return [f"{value:g} s" if name in seconds and value is not None else value for name, value in facts.items()]
