"""``gateway audit``: what was done in a project, by whom, as a list or as CSV."""

from __future__ import annotations

import itertools
import json
import re
import sys
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, device_id
from gateway.cli.devices import json_option
from gateway.cli.fleet_view import told
from gateway.cli.lazy_loading import lazily
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import MOMENT
from gateway.core import csv_text
from gateway.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
else:
    httpx = lazily("httpx")

LIMIT: Final = 100
_ID: Final = re.compile(r"(key_|dev_|user:).+|cli|gateway", re.DOTALL)
_NAMED: Final = 20
"""Actors that an error names."""
_TIME: Final = "RFC 3339, such as 2026-11-20T08:15:00Z, or how long ago, such as 30d"


@click.command(
    cls=SettingsCommand,
    name="audit",
    epilog="""\b
Examples:
  gateway audit --actor key_01JD3M5Q --since 30d
  gateway audit --actor backend --type reset.requested --limit 0
  gateway audit --actor key_01JD3M5Q --csv > backend.csv
""",
)
@click.option("--actor", metavar="ACTOR", help="Only what this one did: a key's id or name, user:…, cli, gateway.")
@click.option("--type", metavar="TYPE", help="Only of this type, such as reset.requested.")
@click.option("--device", metavar="DEVICE", type=DEVICE, help="Only of this device, by id or serial number.")
@click.option("--since", metavar="TIME", type=MOMENT, help=f"Then or later: {_TIME}.")
@click.option("--until", metavar="TIME", type=MOMENT, help="Before then.")
@click.option("--limit", type=click.IntRange(0), help=f"At most so many; 0: all.  [default: {LIMIT}; CSV: all]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a header line.")
@json_option
@with_gateway
def audit(
    place: Place,
    *,
    actor: str | None,
    device: str | None,
    limit: int | None,
    as_csv: bool,
    as_json: bool,
    **filters: str | None,
) -> None:
    """Show who did what.

    The audit trail of one project, newest first: over HTTP with an API key, or from the data directory. With --json
    each event is a JSON document on its own line. CSV has the columns of the API. A cell that a spreadsheet would take
    for a formula begins with an apostrophe there.

    Events of the whole registry belong to no project: 'gateway events security' reads those in the data directory.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other. Choose one.")

    async def work(api: ApiClient) -> None:
        by = None if actor is None else await _actor_id(api, actor)
        of_device = None if device is None else await device_id(api, device, deleted=True)
        wanted = {**filters, "actor": by, "device_id": of_device}
        if as_csv:
            await _print_csv(api, wanted, limit or 0)
        else:
            await _print(api, wanted, LIMIT if limit is None else limit, as_json=as_json)

    place.run(work, device=device)


async def _actor_id(api: ApiClient, actor: str) -> str:
    """Return the id of an actor that was given by its id or its name.

    Raises:
        NotFoundError: no actor of that name has done anything.
        click.UsageError: several have that name.
    """
    if _ID.fullmatch(actor):
        return actor
    known = (await api.get(at("actors")))["data"]
    found = [each["actor"] for each in known if each["name"] == actor]
    if len(found) > 1:
        raise click.UsageError(f"--actor: several are called '{actor}'. Name one by its id: {', '.join(found)}.")
    if not found:
        names = ", ".join(f"{each['actor']} ({each['name'] or 'no name'})" for each in known[:_NAMED])
        raise NotFoundError(f"--actor: nothing was done by '{actor}'. There are: {names or 'none yet'}.")
    return str(found[0])


async def _print(api: ApiClient, filters: dict[str, str | None], limit: int, *, as_json: bool) -> None:
    shown = 0
    async for event in _events(api, filters):
        if limit and shown == limit:
            output.note(f"There are more than {limit}: --limit 0 lists all.")
            return
        click.echo(json.dumps(event) if as_json else told(event))
        shown += 1


async def _events(api: ApiClient, filters: dict[str, str | None]) -> AsyncIterator[Json]:
    cursor: str | None = None
    while True:
        page = await api.get(at("events"), limit=PAGE, cursor=cursor, **filters)
        for each in page["data"]:
            yield each
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def _print_csv(api: ApiClient, filters: dict[str, str | None], limit: int) -> None:
    """Copy the lines; a record has one line, since line breaks in cells are written out."""
    numbers = itertools.count()
    try:
        async for line in api.lines(at("events"), {"Accept": csv_text.MEDIA_TYPE}, **filters):
            if limit and next(numbers) > limit:
                return
            sys.stdout.write(f"{line}\r\n")
    except httpx.TransportError as error:
        raise UnavailableError("The list broke off, so it is incomplete. Start it again.") from error
