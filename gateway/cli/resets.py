"""``gateway resets``: which resets are open, and how the others ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import DEVICE, device_id
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION, MOMENT
from gateway.core import csv_text
from gateway.core.clock import SECOND_MS
from gateway.core.text import count
from gateway.models.reset_list import CSV_COLUMNS, OUTCOMES, ResetStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

TOO_OLD: Final = 7
_COLUMNS: Final = {
    "COMMAND": "command_id",
    "DEVICE": "device_id",
    "SERIAL": "serial_number",
    "STATUS": "status",
    "REQUESTED": "requested_at",
    "BY": "requested_by",
    "DELIVERED": "delivered_at",
    "FINISHED": "finished_at",
    "CERTIFICATE": "certificate_id",
    "REASON": "reason",
}
_FINISHED: Final = ("finished_at", "device_id", "serial_number", "certificate_id", "addendum_id", "reason")
_AGE: Final = ((86_400, "day"), (3_600, "hour"))


@click.group(name="resets", epilog="\b\nExample:\n  gateway resets report --since 30d")
def resets_group() -> None:
    """List and report factory resets."""


def _period(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with a period and a format."""
    times = "RFC 3339, such as 2026-11-20T08:15:00Z, or how long ago, such as 30d"
    click.option(
        "--format",
        "as_",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help="Output.",
    )(function)
    click.option("--until", metavar="TIME", type=MOMENT, help="Before then.")(function)
    return click.option("--since", metavar="TIME", type=MOMENT, help=f"Then or later: {times}.")(function)


@resets_group.command(
    cls=SettingsCommand,
    name="list",
    epilog="\b\nExamples:\n  gateway resets list --status open --order asc\n"
    "  gateway resets list --since 30d --format csv > resets.csv",
)
@click.option("--device", metavar="DEVICE", type=DEVICE, help="Only of this device, by id or serial number.")
@click.option("--status", type=click.Choice([each.value for each in ResetStatus]), help="Only those.")
@click.option(
    "--time",
    type=click.Choice(["requested_at", "finished_at"]),
    default="requested_at",
    show_default=True,
    help="The time that --since, --until and the order go by.",
)
@click.option("--order", type=click.Choice(["asc", "desc"]), default="desc", show_default=True, help="Direction.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@_period
@with_gateway
def list_resets(place: Place, *, device: str | None, limit: int, as_: str, **filters: str | None) -> None:
    """List factory resets, newest first.

    CSV has the columns of the API. A cell that a spreadsheet would take for a formula
    begins with an apostrophe there.
    """

    async def work(api: ApiClient) -> tuple[list[Json], bool]:
        of_device = None if device is None else await device_id(api, device, deleted=True)
        found = [each async for each in _resets(api, (limit + 1) if limit else 0, {**filters, "device_id": of_device})]
        return found[: limit or None], bool(limit) and len(found) > limit

    found, more = place.run(work, device=device)
    if as_ == "json":
        output.as_json(found)
    elif as_ == "csv":
        _csv(found)
    else:
        rows = ({**each, "requested_by": _by(each)} for each in found)
        output.table(list(_COLUMNS), ([each[field] for field in _COLUMNS.values()] for each in rows))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


def _by(reset: Json) -> str | None:
    """Return who asked, by name and id."""
    name, actor = reset["requested_by_name"], reset["requested_by"]
    return f"{name} ({actor})" if name else actor


async def _resets(api: ApiClient, limit: int, filters: Mapping[str, str | None]) -> AsyncIterator[Json]:
    """Yield at most so many resets (0: all)."""
    cursor, given = None, 0
    while True:
        wanted = min(limit - given, PAGE) if limit else PAGE
        page = await api.get(at("resets"), limit=wanted, cursor=cursor, **filters)
        for each in page["data"]:
            yield each
        given, cursor = given + len(page["data"]), page["next_cursor"]
        if cursor is None or given == limit:
            return


@resets_group.command(
    cls=SettingsCommand,
    name="report",
    epilog="\b\nExamples:\n  gateway resets report --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z\n"
    "  gateway resets report --max-age 30d --format json",
)
@click.option(
    "--max-age",
    "max_age_ms",
    type=DURATION,
    metavar="DURATION",
    help="Exit with 7 when a reset has been open for longer, such as 30d.",
)
@_period
@with_gateway
def report(place: Place, *, since: str | None, until: str | None, as_: str, max_age_ms: int | None) -> int:
    """Report open and finished resets.

    Open resets are counted by age, all of them. Those that ended in the period are listed
    by outcome, each with its certificate. CSV has the finished ones alone.
    """
    period = {"since": since, "until": until}

    async def work(api: ApiClient) -> tuple[Json, list[Json]]:
        summary = await api.get(at("resets", "summary"), **period)
        filters = {**period, "time": "finished_at"}
        return summary, [each async for each in _resets(api, 0, filters)]

    summary, finished = place.run(work)
    if as_ == "csv":
        _csv(finished)
    elif as_ == "json":
        output.as_json({**period, **summary, "resets": finished})
    else:
        _print(summary, finished)
    return _overdue(summary["open"], max_age_ms)


def _print(summary: Json, finished: list[Json]) -> None:
    opened = summary["open"]
    click.secho(f"Open: {opened['count']}", bold=True)
    output.table(("AGE", "RESETS"), ((_class(each), each["count"]) for each in opened["by_age"]))
    click.echo()
    click.secho(f"Ended in the period: {sum(summary['finished'].values())}", bold=True)
    output.table(("OUTCOME", "RESETS"), ((each.value, summary["finished"][each]) for each in OUTCOMES))
    for outcome in OUTCOMES:
        of_it = [each for each in finished if each["status"] == outcome]
        if of_it:
            click.secho(f"\n{outcome.value.capitalize()}", bold=True)
            headings = [field.removesuffix("_id").removesuffix("_at").upper() for field in _FINISHED]
            output.table(headings, ([each[field] for field in _FINISHED] for each in of_it))


def _class(age: Json) -> str:
    """Return a class of age in words."""
    since, until = age["from_seconds"], age["to_seconds"]
    if until is None:
        return f"{_words(since)} and more"
    return f"under {_words(until)}" if since == 0 else f"{_words(since)} to {_words(until)}"


def _words(seconds: int) -> str:
    length, unit = next(each for each in _AGE if seconds >= each[0])
    return count(seconds // length, unit)


def _overdue(opened: Json, max_age_ms: int | None) -> int:
    """Return the exit code: 7 when the oldest open reset is older than this."""
    oldest: str | None = opened["oldest_requested_at"]
    if max_age_ms is None or oldest is None:
        return 0
    age = (datetime.now(UTC) - datetime.fromisoformat(oldest)).total_seconds()
    if age <= max_age_ms / SECOND_MS:
        return 0
    output.note(f"The oldest open reset was requested at {oldest}: longer ago than --max-age.")
    return TOO_OLD


def _csv(resets: list[Json]) -> None:
    for cells in (CSV_COLUMNS, *([each[name] for name in CSV_COLUMNS] for each in resets)):
        click.echo(csv_text.line(cells), nl=False)
