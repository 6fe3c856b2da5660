"""``gateway events``."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import click

from gateway.cli import output
from gateway.cli.api import PAGE, Api, Json, Place, at, with_gateway
from gateway.cli.devices import DEVICE, json_option
from gateway.cli.options import SettingsCommand

LOOK_SECONDS: Final = 1.0
_SHOWN_APART: Final = ("device_id", "actor")


@click.group(name="events", epilog="\b\nExample:\n  gateway events tail --follow")
def events_group() -> None:
    """Read the audit trail."""


@events_group.command(
    cls=SettingsCommand,
    name="tail",
    epilog="\b\nExamples:\n  gateway events tail --limit 100\n  gateway events tail --follow --device dev_01JD3M5Q",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--device", "device_id", metavar="DEVICE", type=DEVICE, help="Only of this device.")
@click.option("--type", "kind", metavar="TYPE", help="Only of this type, such as reset.completed.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Begin with so many.")
@json_option
@with_gateway
def tail(place: Place, *, follow: bool, device_id: str | None, kind: str | None, limit: int, as_json: bool) -> None:
    """Print the newest events, and what comes.

    The oldest of them first. With --json each is a JSON document on a line of its own.
    """
    only = {"device_id": device_id, "type": kind}
    place.run(lambda api: _tail(api, only, limit, follow=follow, as_json=as_json), device_id=device_id)


async def _tail(api: Api, only: dict[str, str | None], limit: int, *, follow: bool, as_json: bool) -> None:
    newest = await _newest(api, only, max(limit, 1), None)
    _print(newest[-limit:] if limit else [], as_json=as_json)
    last = newest[-1]["id"] if newest else None
    while follow:
        await asyncio.sleep(LOOK_SECONDS)
        fresh = await _newest(api, only, None, last)
        _print(fresh, as_json=as_json)
        last = fresh[-1]["id"] if fresh else last


async def _newest(api: Api, only: dict[str, str | None], limit: int | None, after: str | None) -> list[Json]:
    """The newest ``limit`` events, or all that came after one, the oldest first."""
    found: list[Json] = []
    cursor, more = None, True
    while more and (limit is None or len(found) < limit):
        page = await api.get(at("events"), limit=PAGE, cursor=cursor, **only)
        ids = [each["id"] for each in page["data"]]
        known = ids.index(after) if after in ids else None
        found += page["data"][:known]
        cursor, more = page["next_cursor"], page["has_more"] and known is None
    return found[:limit][::-1]


def _print(events: list[Json], *, as_json: bool) -> None:
    for event in events:
        click.echo(json.dumps(event) if as_json else _line(event))


def _line(event: Json) -> str:
    data = event["data"]
    facts = [f"{name}={output.cell(value)}" for name, value in data.items() if name not in _SHOWN_APART]
    words = (event["created_at"], event["type"], data.get("device_id", "-"), f"by {data.get('actor', '-')}", *facts)
    return "  ".join(map(output.cell, words))
