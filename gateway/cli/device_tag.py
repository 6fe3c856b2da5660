"""``gateway devices tag``: add tags to devices and remove them."""

from __future__ import annotations

from typing import Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, EXPLAINED, device_id
from gateway.cli.devices import json_option
from gateway.cli.options import SettingsCommand
from gateway.errors import GatewayError

EPILOG: Final = f"""\b
Examples:
  gateway devices tag BP-000123 BP-000124 --add pilot --add ward-3
  gateway devices tag BP-000123 --remove pilot
  gateway devices list --tag pilot --tag ward-3

A tag is 1 to 64 of the letters A-Z and a-z, digits and '_.:-'. A device has at most 32. {EXPLAINED}
"""


@click.command(cls=SettingsCommand, name="tag", epilog=EPILOG)
@click.argument("named", metavar="DEVICE...", nargs=-1, required=True, type=DEVICE)
@click.option("--add", multiple=True, metavar="TAG", help="Tag to add; repeat it for several.")
@click.option("--remove", multiple=True, metavar="TAG", help="Tag to remove; repeat it for several.")
@json_option
@with_gateway
def tag(place: Place, *, named: tuple[str, ...], add: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> int:
    """Add tags to devices, or remove them.

    A device that has a tag already, or lacks one that is removed, stays as it is. When one device is refused, the
    others are changed all the same, and the exit code is 1.
    """
    if not add and not remove:
        raise click.UsageError("Say what to change: --add or --remove.")
    body = {field: list(tags) for field, tags in {"add_tags": add, "remove_tags": remove}.items() if tags}
    changed, refused = place.run(lambda api: _tag(api, named, body), device=named[0])
    if as_json:
        output.as_json(changed)
    elif changed:
        rows = ([each["id"], each["serial_number"], ", ".join(each["tags"])] for each in changed)
        output.table(("ID", "SERIAL", "TAGS"), rows)
    for why in refused:
        output.note(why)
    return int(bool(refused))


async def _tag(api: ApiClient, named: tuple[str, ...], body: Json) -> tuple[list[Json], list[str]]:
    """Return the devices that were changed, and why others were not."""
    changed: list[Json] = []
    refused: list[str] = []
    for each in dict.fromkeys(named):
        try:
            changed.append(await api.patch(at("devices", await device_id(api, each)), body))
        except GatewayError as error:
            if len(named) == 1:
                raise
            refused.append(f"{each}: {error.message}")
    return changed, refused
