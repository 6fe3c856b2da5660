"""SQL of gauges: the present state of the registry over all projects, for the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.store import account_sql, device_count_sql, outbox_sql, token_sql

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.transaction import View


class OpenCommands(NamedTuple):
    """Number of commands of a type and status, and when the oldest was queued (milliseconds since the epoch)."""

    type: str
    status: str
    number: int
    oldest_at: int


class FleetGauges(NamedTuple):
    """Numbers of devices, without deleted ones."""

    devices: int = 0
    bound: int = 0
    online: int = 0
    never_seen: int = 0
    low_battery: int = 0
    storage_full: int = 0
    without_mqtt_password: int = 0


def open_commands(view: View) -> list[OpenCommands]:
    """Return open commands by type and status."""
    return [
        OpenCommands(*row)
        for row in view.all(
            """SELECT type, status, count(*), min(created_at) FROM commands WHERE status IN ('pending', 'delivered')
                GROUP BY type, status"""
        )
    ]


def bound_at(view: View, broker_id: str) -> int:
    """Return how many bound devices this broker admits, from kept counts: those without a home or at home there."""
    return max(0, device_count_sql.of_all(view).bound - _elsewhere(view, broker_id))


def devices_at(view: View, broker_id: str) -> int:
    """Return how many devices this broker serves, bound or not, from kept counts."""
    return max(0, device_count_sql.of_all(view).total - _elsewhere(view, broker_id))


def mirrored_at(view: View, broker_id: str, mirrored: Collection[str]) -> int:
    """Return how many messages this broker retains for integrators, from kept counts.

    These are a message for each device and each topic of ``mirrored``, and a second state for each device of a project
    that has an account. With home brokers the number of those second states is an upper bound.
    """
    devices = devices_at(view, broker_id)
    number = devices * len(mirrored)
    if outbox_sql.STATE in mirrored:
        counts = device_count_sql.kept(view)
        number += min(devices, sum(counts[each].total for each in account_sql.projects(view) if each in counts))
    return number


def _elsewhere(view: View, broker_id: str) -> int:
    """Return how many devices have another broker as their home."""
    devices: int = view.value("SELECT coalesce(sum(devices), 0) FROM brokers WHERE id <> ?", broker_id)
    return devices


def fleet(view: View) -> FleetGauges:
    """Return the numbers of devices, from kept counts."""
    counts = device_count_sql.of_all(view)
    return FleetGauges(
        devices=counts.total,
        bound=counts.bound,
        online=counts.online,
        never_seen=counts.total - counts.seen,
        low_battery=counts.low_battery,
        storage_full=counts.storage_full,
        without_mqtt_password=token_sql.without_mqtt_password(view),
    )


def outbox(view: View) -> list[tuple[str, int, int]]:
    """Return by kind how many rows wait, and since when the oldest is due (milliseconds since the epoch)."""
    due = view.dialect.greatest("created_at", "not_before")
    rows = view.all(f"SELECT kind, count(*), min({due}) FROM outbox GROUP BY kind")  # noqa: S608 - our own columns
    return [(row[0], row[1], row[2]) for row in rows]


def outbox_by_broker(view: View) -> dict[int, tuple[int, int]]:
    """Return by broker how many rows wait, and since when the oldest is due (milliseconds since the epoch)."""
    due = view.dialect.greatest("created_at", "not_before")
    rows = view.all(f"SELECT broker_pk, count(*), min({due}) FROM outbox GROUP BY broker_pk")  # noqa: S608 - our own
    return {row[0]: (row[1], row[2]) for row in rows}


def deliveries_waiting(view: View) -> int:
    """Return the number of pending deliveries to webhooks."""
    waiting: int = view.value("SELECT count(*) FROM deliveries WHERE status = 'pending'")
    return waiting


def database_bytes(view: View) -> int | None:
    """Return the size of the database on its server; None for SQLite, whose file tells it."""
    found: int | None = view.value(view.dialect.database_bytes)
    return found
