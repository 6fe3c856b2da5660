"""``gateway jobs create``: after a look at what would happen, and with the count typed."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, EXPLAINED, device_id
from gateway.cli.devices import devices, json_option
from gateway.cli.job_watch import follow
from gateway.cli.jobs import print_job
from gateway.cli.key_values import EXPLAINED as KEY_VALUE_EXPLAINED
from gateway.cli.key_values import KEY_VALUE
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION, LATER
from gateway.cli.reset_wishes import reset_options
from gateway.cli.suggestions import again
from gateway.core import ids, serial_numbers
from gateway.core.clock import SECOND_MS
from gateway.core.command_types import CommandType
from gateway.core.text import count

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG: Final = f"""\b
Examples:
  gateway jobs create --name 'Recall 12' --action factory_reset --tag batch-12 --dry-run
  gateway jobs create --name 'Recall 12' --action factory_reset --tag batch-12 --ramp-from 10 --double-after 1m
  gateway jobs create --name 'Night upload' --action trigger_upload --param network=wifi --all --start-at 'in 8h'
  gateway jobs create --name 'Returned' --action factory_reset --from-file returned.txt --confirm-count 812 --watch

Devices are chosen by --device and --from-file, or by filters, or --all. A file has one device on each line; empty lines
and lines that begin with # are passed over. {EXPLAINED}

The job shows what it would do first. On a terminal it asks for the number of devices to be typed; elsewhere
--confirm-count has to say it. {KEY_VALUE_EXPLAINED}
"""
_ACTIONS: Final = [each.value for each in CommandType if each is not CommandType.SET_GRANT_KEY]
_LOOKED_UP: Final = 20
"""Serial numbers that are looked up one by one. Of more, the list of devices is read once."""
_FILTERS: Final = ("tag", "model", "status", "connection", "seen", "condition", "search", "end_user_id")
_NO_WAY_BACK: Final = (
    "A cancel takes back what is not delivered; those devices stay unbound, and have to be bound again."
)


def _target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose devices."""
    for option in (
        click.option("--all", "every", is_flag=True, help="Every device of the project."),
        click.option("--end-user", "end_user_id", metavar="ID", help="Filter: bound to this end user."),
        click.option("--search", metavar="TEXT", help="Filter: text in id, serial number, name, tags or end user."),
        click.option(
            "--condition", type=click.Choice(["low_battery", "storage_full", "reset_pending"]),
            help="Filter: those that stats counts as such.",
        ),
        click.option("--seen/--never-seen", default=None, help="Filter: those that were ever heard, or never were."),
        click.option("--connection", type=click.Choice(["online", "offline"]), help="Filter: by connection."),
        click.option("--status", type=click.Choice(["bound", "unbound"]), help="Filter: by binding."),
        click.option("--model", metavar="MODEL", help="Filter: this model."),
        click.option("--tag", multiple=True, metavar="TAG", help="Filter: this tag; repeated: all must match."),
        click.option("--from-file", "source", type=click.File(encoding="utf-8"), metavar="FILE",
                     help="A list of devices; - is stdin."),
        click.option("--device", "named", multiple=True, type=DEVICE, metavar="DEVICE",
                     help="A device; repeat it for more."),
    ):  # fmt: skip
        function = option(function)
    return function


def _pace_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add when it starts, how fast it goes, and when it stops by itself."""
    for option in (
        click.option("--no-abort", is_flag=True, help="Never stop by itself."),
        click.option("--abort-min", type=click.IntRange(1), metavar="N",
                     help="Not before so many are executed or failed.  [default: 20]"),
        click.option("--abort-percent", type=click.IntRange(1, 100), metavar="PERCENT",
                     help="Stop when so many percent of those have failed.  [default: 10]"),
        click.option("--double-after", "double_ms", type=DURATION, metavar="DURATION",
                     help="With --ramp-from: the time after which the rate doubles, such as 1m."),
        click.option("--ramp-from", type=click.IntRange(1), metavar="N", help="Start with so many devices a minute."),
        click.option("--per-minute", type=click.IntRange(1), metavar="N",
                     help="Devices a minute.  [default: 60 times the setting bulk_reset_per_second]"),
        click.option("--start-at", type=LATER, metavar="TIME", help="RFC 3339, or 'in 2h'.  [default: at once]"),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command(cls=SettingsCommand, name="create", epilog=EPILOG)
@click.option("--name", required=True, metavar="TEXT", help="What people call the job; no names of persons.")
@click.option("--action", "--type", "action", required=True, type=click.Choice(_ACTIONS), help="What each device does.")
@click.option(
    "--param", "--params", "params", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE",
    help="A parameter of the command; again for more.",
)  # fmt: skip
@click.option("--ttl", "ttl_ms", type=DURATION, metavar="DURATION", help="How long each command is good for.")
@reset_options
@_target_options
@_pace_options
@click.option("--dry-run", is_flag=True, help="Say what would happen, and change nothing.")
@click.option("--confirm-count", type=click.IntRange(0), metavar="N", help="The number of devices that you mean.")
@click.option("--watch", is_flag=True, help="Follow the job until it is final, as 'jobs watch' does.")
@json_option
@with_gateway
def create(place: Place, *, dry_run: bool, confirm_count: int | None, watch: bool, as_json: bool, **given: Any) -> int:
    """Create a job for many devices.

    Its devices are fixed then. A device that is bound again later is skipped.
    """
    body = _body(given)
    named = given["named"]
    lines = _listed(given["source"])
    targets = _targets(given, chosen=bool(named or lines or given["source"]))
    where = named[0] if named else None
    if targets is None:
        body["targets"] = {"device_ids": place.run(lambda api: _ids(api, named, lines), device=where)}
    else:
        body["targets"] = {"filter": targets}
    if dry_run or confirm_count is None:
        preview = place.run(lambda api: api.post(at("jobs"), {**body, "dry_run": True}), device=where)
        if dry_run:
            _print_preview(preview, as_json=as_json)
            return 0
        confirm_count = _confirmed(preview, body)
    body["confirm_count"] = confirm_count
    job = place.run(lambda api: api.post(at("jobs"), body), device=where)
    if watch:
        return follow(place, job["id"], as_json=as_json)
    print_job(job, as_json=as_json)
    if not as_json:
        output.note(f"To follow it: {again('jobs', 'watch', job['id'])}")
    return 0


def _body(given: Json) -> Json:
    """Return the body without its targets."""
    is_reset = given["action"] == CommandType.FACTORY_RESET
    if given["recordings"] is not None and not is_reset:
        raise click.UsageError("--recordings is for --action factory_reset. Leave it out.")
    params = dict(given["params"]) | ({"recordings": given["recordings"]} if given["recordings"] else {})
    action: Json = {
        "type": given["action"],
        "params": params or None,
        "ttl_seconds": _seconds(given["ttl_ms"], "--ttl"),
    }
    body = {"name": given["name"], "action": {name: value for name, value in action.items() if value is not None}}
    pace = _pace(given)
    optional = {"reason": given["reason"], "start_at": given["start_at"], "pace": pace or None}
    return {**body, **{name: value for name, value in optional.items() if value is not None}, **_abort(given)}


def _seconds(milliseconds: int | None, option: str) -> int | None:
    if milliseconds is not None and (milliseconds < SECOND_MS or milliseconds % SECOND_MS):
        raise click.UsageError(f"{option} should be whole seconds, at least 1s.")
    return None if milliseconds is None else milliseconds // SECOND_MS


def _pace(given: Json) -> Json:
    if (given["ramp_from"] is None) != (given["double_ms"] is None):
        raise click.UsageError("--ramp-from and --double-after go together: give both, or neither.")
    pace: Json = {} if given["per_minute"] is None else {"per_minute": given["per_minute"]}
    if given["ramp_from"] is not None:
        double_after = _seconds(given["double_ms"], "--double-after")
        pace["ramp"] = {"from_per_minute": given["ramp_from"], "double_after": double_after}
    return pace


def _abort(given: Json) -> Json:
    thresholds = {"failed_percent": given["abort_percent"], "min_done": given["abort_min"]}
    abort = {name: value for name, value in thresholds.items() if value is not None}
    if given["no_abort"]:
        if abort:
            raise click.UsageError("--no-abort goes with neither --abort-percent nor --abort-min.")
        return {"abort": None}
    return {"abort": abort} if abort else {}


def _targets(given: Json, *, chosen: bool) -> Json | None:
    """Return the filter, or None when the devices are listed."""
    filters = {name: given[name] for name in _FILTERS if given[name] not in (None, ())}
    if chosen:
        if filters or given["every"]:
            raise click.UsageError("Choose devices by --device and --from-file, or by filters, or --all; not by both.")
        return None
    if given["every"] == bool(filters):
        raise click.UsageError("Say which devices: --device, --from-file, filters such as --tag, or --all alone.")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in filters.items()}


def _listed(source: IO[str] | None) -> list[str]:
    lines = [] if source is None else [line.strip() for line in source]
    return [line for line in lines if line and not line.startswith("#")]


async def _ids(api: ApiClient, named: tuple[str, ...], lines: list[str]) -> list[str]:
    """Return the ids of all; a line of a file that no device has stays as it is, and the job names it."""
    found = [await device_id(api, each) for each in named]
    serials = [line for line in lines if not ids.is_id(ids.DEVICE, line)]
    known = await _known(api, serials)
    return list(dict.fromkeys([*found, *(known.get(line, line) for line in lines)]))


async def _known(api: ApiClient, serials: list[str]) -> dict[str, str]:
    """Return the ids of the devices with these serial numbers."""
    if len(serials) > _LOOKED_UP:
        every = {each["serial_number"]: each["id"] for each in (await devices(api, 0, {}))[0]}
    else:
        answers = [await api.get(at("devices"), serial_number=each) for each in serials]
        every = {each["serial_number"]: each["id"] for answer in answers for each in answer["data"]}
    forms = ((each, form) for each in serials for form in serial_numbers.forms(each))
    return {each: every[form] for each, form in forms if form in every}


def _confirmed(preview: Json, body: Json) -> int:
    """Show what would happen, and have the number of devices typed.

    Raises:
        click.UsageError: there is no terminal to ask on.
        click.ClickException: another number was typed.
    """
    total: int = preview["total"]
    what = f"'{body['name']}' will do {body['action']['type']} on {count(total, 'device')}: {_summary(preview)}."
    if body["action"]["type"] == CommandType.FACTORY_RESET:
        what += f" {_NO_WAY_BACK}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} There is no terminal to ask on: add --confirm-count {total}. Nothing was done.")
    output.note(what)
    typed = click.prompt("Type the number of devices to go on", err=True, default="", show_default=False)
    if typed.strip().replace(",", "") != str(total):
        raise click.ClickException("That is not the number of devices. Nothing was done.")
    return total


def _summary(preview: Json) -> str:
    words = [f"{number:,} {name}" for name, number in preview["counts"].items() if number]
    waits = [f"{number:,} {name}" for name, number in preview["waits"].items() if number]
    return ", ".join(words) + (f" (of these wait: {', '.join(waits)})" if waits else "")


def _print_preview(preview: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(preview)
        return
    rows = ([each["device_id"], each["outcome"], each["reason"]] for each in preview["devices"])
    output.table(("DEVICE", "OUTCOME", "REASON"), rows)
    more = f" The first {len(preview['devices']):,} are shown." if preview["has_more"] else ""
    output.note(f"{count(preview['total'], 'device')}: {_summary(preview)}. Nothing was done.{more}")
