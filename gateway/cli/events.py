"""``gateway events``."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import event_follow
from gateway.cli.api import ApiClient, Json, Place, with_gateway
from gateway.cli.device_lookup import DEVICE, device_id
from gateway.cli.devices import json_option
from gateway.cli.event_follow import newest
from gateway.cli.fleet_view import told
from gateway.cli.options import SettingsCommand, with_settings
from gateway.models.events import EventType
from gateway.settings import registry
from gateway.store import View, event_sql, key_sql, open_existing

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

_ADMINISTRATIVE: Final = tuple(str(each) for each in EventType if not each.is_of_device)


@click.group(name="events", epilog="\b\nExample:\n  gateway events tail --follow")
def events_group() -> None:
    """Read the audit trail."""


@events_group.command(
    cls=SettingsCommand,
    name="tail",
    epilog="\b\nExamples:\n  gateway events tail --limit 100\n  gateway events tail --follow --device dev_01JD3M5Q",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--device", metavar="DEVICE", type=DEVICE, help="Only of this device, by id or serial number.")
@click.option("--type", "kind", metavar="TYPE", help="Only of this type, such as reset.completed.")
@click.option("--actor", metavar="ACTOR", help="Only what this one did: the id of a key or a device, user:…, cli.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Begin with so many.")
@json_option
@with_gateway
def tail(
    place: Place,
    *,
    follow: bool,
    device: str | None,
    kind: str | None,
    actor: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print the newest events, and what comes.

    The oldest of them first. With --follow over HTTP they come from the event stream, which is resumed where it was
    lost. With --json each is a JSON document on its own line.
    """

    async def work(api: ApiClient) -> None:
        of_device = None if device is None else await device_id(api, device, deleted=True)
        await _tail(api, {"device_id": of_device, "type": kind, "actor": actor}, limit, follow=follow, as_json=as_json)

    place.run(work, device=device)


@events_group.command(
    cls=SettingsCommand,
    name="security",
    epilog="""\b
Examples:
  gateway events security --limit 100
  gateway events security --type key.created --json
""",
)
@click.option("--project", metavar="ID", help="Only of this project, by id or name; none: of all, and of the registry.")
@click.option("--type", "kind", metavar="TYPE", help="Only of this type, such as key.revoked.")
@click.option("--actor", metavar="ACTOR", help="Only what this one did: cli, gateway, user:…, or the id of a key.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many.")
@json_option
@with_settings(*registry.NAMES)
def security(
    loaded: Loaded, *, project: str | None, kind: str | None, actor: str | None, limit: int, as_json: bool
) -> None:
    """Print changes of keys and accounts.

    They are those of projects, API keys, broker accounts, signing keys and webhooks.

    The oldest of them first, of every project and of the registry itself, from the data directory. With --json each is
    a JSON document on its own line.
    """
    if kind is not None and kind not in _ADMINISTRATIVE:
        raise click.UsageError(f"--type should be one of {', '.join(_ADMINISTRATIVE)}.")
    with closing(open_existing(loaded.settings.registry)) as connection:
        view = View(connection)
        project_id = None if project is None else key_sql.require_project(view, project).id
        events = event_sql.administrative(view, project_id, kind, limit, actor)
    for each in reversed(events):
        event = event_sql.to_model(each).model_dump()
        of = each.project or "the registry"
        click.echo(json.dumps({**event, "project": each.project}) if as_json else told(event, subject=of))


async def _tail(api: ApiClient, only: dict[str, str | None], limit: int, *, follow: bool, as_json: bool) -> None:
    known = await newest(api, max(limit, 1), None, **only)
    for event in known[-limit:] if limit else []:
        _print(event, as_json=as_json)
    if follow:
        async for event in event_follow.follow(api, known[-1]["id"] if known else None, only):
            _print(event, as_json=as_json)


def _print(event: Json, *, as_json: bool) -> None:
    click.echo(json.dumps(event) if as_json else told(event))
    sys.stdout.flush()  # through a pipe too each is there at once
