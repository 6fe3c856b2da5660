"""``gateway devices cancel-resets``: take back the resets of many devices, as fast as it goes."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, EXPLAINED, device_id
from gateway.cli.devices import devices, json_option, yes_option
from gateway.cli.options import SettingsCommand
from gateway.core.text import count
from gateway.models.bulk import MOST_DEVICES

EPILOG: Final = f"""\b
Examples:
  gateway devices cancel-resets --all --dry-run
  gateway devices cancel-resets dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AC

A device that has said that it has its reset cannot be held back any more ("too_late"). One that is held back is not
wiped; its token is revoked, and it has to be bound again. {EXPLAINED}
"""
_ALL: Final = {"condition": "reset_pending"}


@click.command(cls=SettingsCommand, name="cancel-resets", epilog=EPILOG)
@click.argument("named", metavar="[DEVICE]...", nargs=-1, type=DEVICE)
@click.option("--all", "every", is_flag=True, help="All devices of the project with an open reset.")
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@yes_option
@json_option
@with_gateway
def cancel_resets(
    place: Place, *, named: tuple[str, ...], every: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Take back the open resets of many devices.

    Until a device has said that it has its reset, it can be held back. Devices that were
    told already, and are away, are held back too: what waits at the broker is cleared.
    The gateway first reads what the broker holds: with the broker away, or the gateway
    stopped, only resets that were never published are cancelled, and the rest fail.
    """
    if every == bool(named):
        raise click.UsageError("Name the devices, or say --all.")
    if not dry_run:
        whose = "every device with an open reset" if every else count(len(named), "device")
        output.confirm(f"The resets of {whose} will be cancelled, and their tokens revoked.", yes=yes)
    outcomes = place.run(lambda api: _cancel(api, named, dry_run=dry_run), device=named[0] if named else None)
    _print(outcomes, as_json=as_json)


async def _cancel(api: ApiClient, named: tuple[str, ...], *, dry_run: bool) -> list[Json]:
    wanted = [await device_id(api, each) for each in named]
    if not named:
        wanted = [device["id"] for device in (await devices(api, 0, _ALL))[0]]
    outcomes: list[Json] = []
    for start in range(0, len(wanted), MOST_DEVICES):
        body = {"device_ids": wanted[start : start + MOST_DEVICES], "dry_run": dry_run}
        outcomes += (await api.post(at("devices", "bulk", "reset", "cancel"), body))["data"]
    return outcomes


def _print(outcomes: list[Json], *, as_json: bool) -> None:
    if as_json:
        output.as_json(outcomes)
        return
    output.table(("ID", "OUTCOME", "ERROR"), ([each["id"], each["outcome"], _reason(each)] for each in outcomes))
    counted = Counter(each["outcome"] for each in outcomes)
    output.note(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())) or "No reset is open.")


def _reason(outcome: Json) -> str | None:
    error: Json | None = outcome["error"]
    return None if error is None else str(error["message"])
