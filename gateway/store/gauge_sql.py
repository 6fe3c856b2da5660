"""SQL of what the metrics show of the registry as it is now, over all projects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.store import token_sql

if TYPE_CHECKING:
    from gateway.store.sqlite.connection import View


class OpenCommands(NamedTuple):
    """How many commands of a type have a status, and when the oldest was queued (milliseconds since the epoch)."""

    type: str
    status: str
    number: int
    oldest_at: int


class FleetGauges(NamedTuple):
    """How many devices there are, deleted ones aside."""

    devices: int = 0
    bound: int = 0
    online: int = 0
    never_seen: int = 0
    low_battery: int = 0
    storage_full: int = 0
    without_mqtt_password: int = 0


def open_commands(view: View) -> list[OpenCommands]:
    """Open commands by type and status."""
    return [
        OpenCommands(*row)
        for row in view.all(
            """SELECT type, status, count(*), min(created_at) FROM commands WHERE status IN ('pending', 'delivered')
                GROUP BY type, status"""
        )
    ]


def fleet(view: View) -> FleetGauges:
    """The fleet at a glance. It looks at every device: not for every second."""
    row = view.one(
        """SELECT count(*), coalesce(sum(d.bound_at IS NOT NULL), 0), coalesce(sum(h.connection = 'online'), 0),
            count(*) - count(h.device_pk), coalesce(sum(h.low_battery), 0), coalesce(sum(h.storage_full), 0)
            FROM devices d LEFT JOIN health h ON h.device_pk = d.pk WHERE d.deleted_at IS NULL"""
    )
    counted = FleetGauges() if row is None else FleetGauges(*row)
    return counted._replace(without_mqtt_password=token_sql.without_mqtt_password(view))


def outbox(view: View) -> list[tuple[str, int, int]]:
    """By kind: how many rows wait, and since when (milliseconds since the epoch) the oldest could be worked off."""
    rows = view.all("SELECT kind, count(*), min(max(created_at, not_before)) FROM outbox GROUP BY kind")
    return [(row[0], row[1], row[2]) for row in rows]


def deliveries_waiting(view: View) -> int:
    """Deliveries to webhooks that are not yet made and not given up."""
    waiting: int = view.value("SELECT count(*) FROM deliveries WHERE status = 'pending'")
    return waiting
