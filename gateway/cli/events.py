"""``gateway events``."""

from __future__ import annotations

import json
import sys

import click

from gateway.cli import following
from gateway.cli.api import Api, Json, Place, with_gateway
from gateway.cli.devices import DEVICE, json_option
from gateway.cli.following import newest
from gateway.cli.glance import told
from gateway.cli.options import SettingsCommand


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

    The oldest of them first. With --follow over HTTP they come from the event stream,
    which is taken up again where it was lost. With --json each is a JSON document on a line of its own.
    """
    only = {"device_id": device_id, "type": kind}
    place.run(lambda api: _tail(api, only, limit, follow=follow, as_json=as_json), device_id=device_id)


async def _tail(api: Api, only: dict[str, str | None], limit: int, *, follow: bool, as_json: bool) -> None:
    known = await newest(api, max(limit, 1), None, **only)
    for event in known[-limit:] if limit else []:
        _print(event, as_json=as_json)
    if follow:
        async for event in following.follow(api, known[-1]["id"] if known else None, only):
            _print(event, as_json=as_json)


def _print(event: Json, *, as_json: bool) -> None:
    click.echo(json.dumps(event) if as_json else told(event))
    sys.stdout.flush()  # through a pipe too each is there when it happens
