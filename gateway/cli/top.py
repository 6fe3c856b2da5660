"""``gateway top``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gateway.cli import event_follow, keyboard, output, presence
from gateway.cli.api import ApiClient, Json, with_gateway
from gateway.cli.devices import json_option, tag_option
from gateway.cli.fleet_view import COLUMNS, EVENTS, FIGURES, ONLY, cells, counted, look, project_name, told
from gateway.cli.options import SettingsCommand

if TYPE_CHECKING:
    from gateway.cli.api import Place

EPILOG: Final = """\b
Examples:
  gateway top
  gateway top --only low-battery --tag pilot
  gateway top --json | jq .stats

\b
Keys of the live view:
  a all   n online   o offline   v never seen   b low battery   s storage full   r pending resets
  space next page   p previous page   q quit
"""
_LISTED: Final = 20


@click.command(cls=SettingsCommand, name="top", epilog=EPILOG)
@click.option("--only", type=click.Choice(list(ONLY)), default="all", show_default=True, help="List only those.")
@tag_option
@click.option("--once", is_flag=True, help="Print it once as plain text, and end.")
@json_option
@with_gateway
def top(place: Place, *, only: str, tag: tuple[str, ...], once: bool, as_json: bool) -> None:
    """See the fleet at a glance, live.

    How many devices are online, offline, low, full or waiting for a reset, the newest of them, and what happens.
    Without a terminal it is printed once, as plain text; with --json as one JSON document.
    """
    if as_json or once or not keyboard.at_terminal():
        whole, why = place.run(lambda api: _whole(api, only, tag))
        output.as_json(whole) if as_json else _print(whole, why)
    else:
        from gateway.cli.top_live import LiveView  # noqa: PLC0415 - what draws, which nothing else needs

        place.run(lambda api: LiveView(api, only, tag).run())


async def _whole(api: ApiClient, only: str, tags: tuple[str, ...]) -> tuple[Json, str | None]:
    fleet = await look(api, only, tags=tags, offset=0, limit=_LISTED)
    whole = {
        "project_name": await project_name(api),
        "stats": fleet.stats,
        "devices": fleet.devices,
        "has_more": fleet.more,
        "events": await event_follow.newest(api, EVENTS, None),
    }
    return whole, fleet.doubt


def _print(whole: Json, why: str | None) -> None:
    figures = ", ".join(f"{counted(whole['stats'], name, why)} {label}" for name, label in FIGURES.items())
    click.echo(f"{output.cell(whole['project_name'])}: {figures}\n")
    output.table(COLUMNS, (cells(presence.as_known(each, why)) for each in whole["devices"]))
    click.echo()
    for event in whole["events"]:
        click.echo(told(event))
    if whole["has_more"]:
        output.note(f"There are more than {_LISTED}: 'gateway devices list --limit 0' lists all.")
    presence.warn(why)
