"""``gateway devices bulk-reset``: reset many devices at a pace, after a look at what would happen."""

from __future__ import annotations

from collections import Counter
from typing import IO, Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, EXPLAINED, device_id
from gateway.cli.devices import json_option, yes_option
from gateway.cli.options import SettingsCommand
from gateway.cli.reset_wishes import reset_options, wishes
from gateway.cli.suggestions import again
from gateway.core.text import count
from gateway.models.bulk import MOST_DEVICES

EPILOG: Final = f"""\b
Examples:
  gateway devices bulk-reset BP-000123 BP-000124 --dry-run
  gateway devices bulk-reset --file returned.txt --dry-run
  gateway devices bulk-reset --file returned.txt

A file has one device on each line; empty lines and lines that begin with # are passed over. {EXPLAINED}
"""
_NO_WAY_BACK: Final = "A cancel later does not undo this: they stay unbound, and have to be bound again."


@click.command(cls=SettingsCommand, name="bulk-reset", epilog=EPILOG)
@click.argument("named", metavar="[DEVICE]...", nargs=-1, type=DEVICE)
@click.option("--file", "source", type=click.File(encoding="utf-8"), metavar="FILE", help="A list; - is stdin.")
@reset_options
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@yes_option
@json_option
@with_gateway
def bulk_reset(
    place: Place,
    *,
    named: tuple[str, ...],
    source: IO[str] | None,
    reason: str | None,
    recordings: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Reset many devices to factory settings.

    Each is unbound at once and wiped when it takes the command; the commands are published at the pace of
    bulk_reset_per_second. A device that is not found is named, and the others are reset all the same.
    """
    wanted = (*named, *_listed(source))
    if not wanted:
        raise click.UsageError("Name the devices, or a --file with them.")
    if not dry_run:
        more = ", their recordings too" if recordings == "wipe" else ""
        output.confirm(f"{count(len(set(wanted)), 'device')} will be unbound and wiped{more}. {_NO_WAY_BACK}", yes=yes)
    asked = {**wishes(reason, recordings), "dry_run": dry_run}
    outcomes = place.run(lambda api: _reset(api, wanted, asked), device=wanted[0])
    if as_json:
        output.as_json(outcomes)
    else:
        output.table(("ID", "OUTCOME", "ERROR"), ([each["id"], each["outcome"], _reason(each)] for each in outcomes))
        counted = Counter(each["outcome"] for each in outcomes)
        output.note(", ".join(f"{number} {outcome}" for outcome, number in sorted(counted.items())))
        if not dry_run:
            spared = again("devices", "cancel-resets", "--all")
            output.note(f"To spare those the wipe that have not got it yet (they stay unbound): {spared}")
    return int(any(each["error"] is not None for each in outcomes))


def _listed(source: IO[str] | None) -> list[str]:
    lines = [] if source is None else [line.strip() for line in source]
    return [line for line in lines if line and not line.startswith("#")]


async def _reset(api: ApiClient, wanted: tuple[str, ...], asked: Json) -> list[Json]:
    ids = list(dict.fromkeys([await device_id(api, each) for each in wanted]))
    outcomes: list[Json] = []
    for start in range(0, len(ids), MOST_DEVICES):
        body = {"device_ids": ids[start : start + MOST_DEVICES], **asked}
        outcomes += (await api.post(at("devices", "bulk", "reset"), body))["data"]
    return outcomes


def _reason(outcome: Json) -> str | None:
    error: Json | None = outcome["error"]
    return None if error is None else str(error["message"])
