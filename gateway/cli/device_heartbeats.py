"""``gateway devices heartbeats``: the history of a device's heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import device_argument, on_device
from gateway.cli.devices import json_option
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION
from gateway.core.clock import SECOND_MS
from gateway.models.heartbeats import MOST_HEARTBEATS

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS: Final = {
    "RECEIVED": "received_at",
    "BATTERY": "battery_percent",
    "STORAGE MB": "storage_used_mb",
    "SIGNAL": "signal_strength_dbm",
    "DOING": "device_state",
    "PENDING": "pending_recordings",
    "FIRMWARE": "firmware_version",
}
EPILOG: Final = """\b
Examples:
  gateway devices heartbeats BP-000123
  gateway devices heartbeats BP-000123 --since 2026-11-20T00:00:00Z --every 1h
  gateway devices heartbeats BP-000123 --limit 0 --json | jq -r '.[].battery_percent'
"""


@click.command(cls=SettingsCommand, name="heartbeats", epilog=EPILOG)
@device_argument
@click.option("--since", metavar="TIME", help="Received then or later; RFC 3339, such as 2026-11-20T08:15:00Z.")
@click.option("--until", metavar="TIME", help="Received before then.")
@click.option("--every", "every_ms", type=DURATION, metavar="DURATION", help="Only the newest of each such span.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def heartbeats(
    place: Place,
    *,
    device: str,
    since: str | None,
    until: str | None,
    every_ms: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the heartbeats of a device.

    The newest first.
    """
    if every_ms is not None and (every_ms < SECOND_MS or every_ms % SECOND_MS):
        raise click.UsageError("--every should be whole seconds, at least 1s.")
    query = {"since": since, "until": until, "every": every_ms and every_ms // SECOND_MS}
    found, more = on_device(place, device, lambda api, device_id: _heartbeats(api, device_id, query, limit))
    if as_json:
        output.as_json(found)
        return
    output.table(list(_COLUMNS), ([each.get(field) for field in _COLUMNS.values()] for each in found))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


async def _heartbeats(
    api: ApiClient, device_id: str, query: Mapping[str, str | int | None], limit: int
) -> tuple[list[Json], bool]:
    found: list[Json] = []
    cursor, more = None, True
    while more and (not limit or len(found) < limit):
        most = min(limit - len(found), MOST_HEARTBEATS) if limit else MOST_HEARTBEATS
        page = await api.get(at("devices", device_id, "heartbeats"), **query, limit=most, cursor=cursor)
        found += page["data"]
        cursor, more = page["next_cursor"], page["has_more"]
    return found, more
