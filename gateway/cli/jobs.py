"""``gateway jobs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, Place, at, with_gateway
from gateway.cli.completion_lookup import newest
from gateway.cli.devices import json_option
from gateway.cli.lazy_loading import Commands
from gateway.cli.options import SettingsCommand
from gateway.cli.suggestions import again
from gateway.core.visible_text import escaped
from gateway.models.jobs import JobStatus, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP_EPILOG: Final = """\b
Examples:
  gateway jobs create --name 'Recall 12' --action factory_reset --tag batch-12 --dry-run
  gateway jobs watch job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB
  gateway jobs devices job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --outcome failed

A job does one thing to many devices, at a pace, and stops by itself when too many fail ('gateway docs jobs').
"""
_COLUMNS: Final = ("ID", "NAME", "ACTION", "STATUS", "TOTAL", "DONE", "FAILED", "CREATED", "BY")
_DEVICE_COLUMNS: Final = {
    "DEVICE": "device_id",
    "SERIAL": "serial_number",
    "OUTCOME": "outcome",
    "REASON": "reason",
    "COMMAND": "command_id",
    "CHANGED": "changed_at",
}
ENDED: Final = (Outcome.EXECUTED, Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED)
"""Outcomes that are final."""


class FoundJob(click.ParamType[str]):
    """The id of a job, which shells complete."""

    name = "job"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the newest jobs, with name and status for shells that show them."""
        del param
        found = newest(ctx, "jobs")
        return [
            CompletionItem(each["id"], help=escaped(f"{each['status']} {each['name']}"))
            for each in found
            if each["id"].startswith(incomplete)
        ]


def job_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the job that is meant."""
    return click.argument("job_id", metavar="JOB", type=FoundJob())(function)


@click.group(
    name="jobs",
    epilog=GROUP_EPILOG,
    commands=Commands({"create": "gateway.cli.job_create:create", "watch": "gateway.cli.job_watch:watch"}),
)
def jobs_group() -> None:
    """Do one thing to many devices, at a pace."""


@jobs_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway jobs list --status running")
@click.option("--status", type=click.Choice([each.value for each in JobStatus]), help="Only those.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def list_jobs(place: Place, *, status: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found, more = place.run(lambda api: pages(api, at("jobs"), limit, status=status))
    if as_json:
        output.as_json(found)
        return
    output.table(_COLUMNS, map(_row, found))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


def _row(job: Json) -> list[Any]:
    counts = job["counts"]
    who = job["created_by_name"] or job["created_by"]
    done, total, failed = (f"{number:,}" for number in (ended(job), counts["total"], counts["failed"]))
    return [job["id"], job["name"], job["action"]["type"], job["status"], total, done, failed, job["created_at"], who]


def ended(job: Json) -> int:
    """Return how many targets of the job have their final outcome."""
    return sum(job["counts"][outcome] for outcome in ENDED)


def waiting(job: Json) -> int:
    """Return how many targets of the job wait for their turn."""
    counts = job["counts"]
    return int(2 * counts["total"] - sum(counts.values()))


async def pages(api: ApiClient, path: str, limit: int, **query: Any) -> tuple[list[Json], bool]:
    """Return at most so many members of a list (0: all), and whether there are more."""
    found: list[Json] = []
    cursor: str | None = None
    while True:
        wanted = min(limit - len(found), PAGE) if limit else PAGE
        page = await api.get(path, limit=wanted, cursor=cursor, **query)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) == limit:
            return found, cursor is not None


@jobs_group.command(
    cls=SettingsCommand, name="show", epilog="\b\nExample:\n  gateway jobs show job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@job_argument
@json_option
@with_gateway
def show(place: Place, *, job_id: str, as_json: bool) -> None:
    """Show a job and how far it is."""
    print_job(place.run(lambda api: api.get(at("jobs", job_id))), as_json=as_json)


def print_job(job: Json, *, as_json: bool) -> None:
    """Print a job, each count on a separate line."""
    if as_json:
        output.as_json(job)
        return
    counts = {**job["counts"], "waiting": waiting(job)}
    facts = {name: value for name, value in job.items() if name not in ("counts", "created_by_name")}
    facts["created_by"] = job["created_by_name"] or job["created_by"]
    output.details({**facts, **{name: f"{number:,}" for name, number in counts.items()}})


@jobs_group.command(
    cls=SettingsCommand,
    name="devices",
    epilog="\b\nExamples:\n  gateway jobs devices job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --outcome failed --outcome skipped\n"
    "  gateway jobs devices job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --outcome failed --limit 0 --json | jq -r '.[].device_id'",
)
@job_argument
@click.option(
    "--outcome", multiple=True, type=click.Choice([each.value for each in Outcome]),
    help="Only those; repeat it for several.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def devices(place: Place, *, job_id: str, outcome: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the devices of a job by outcome.

    In the order of their turns.
    """
    query = {"outcome": list(outcome)} if outcome else {}
    found, more = place.run(lambda api: pages(api, at("jobs", job_id, "devices"), limit, **query))
    if as_json:
        output.as_json(found)
        return
    output.table(list(_DEVICE_COLUMNS), ([each[field] for field in _DEVICE_COLUMNS.values()] for each in found))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


def _verb(name: str, text: str, then: str | None = None) -> None:
    """Add a command that changes a job."""

    @job_argument
    @json_option
    @with_gateway
    def change(place: Place, *, job_id: str, as_json: bool) -> None:
        print_job(place.run(lambda api: api.post(at("jobs", job_id, name))), as_json=as_json)
        if then is not None:
            output.note(f"{then} {again('jobs', 'watch', job_id)}")

    epilog = f"\b\nExample:\n  gateway jobs {name} job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
    jobs_group.command(cls=SettingsCommand, name=name, help=text, epilog=epilog)(change)


_verb("pause", "Pause a job.\n\nIt queues nothing more until it is resumed. What it has queued stays queued.")
_verb("resume", "Resume a paused job.\n\nIt goes on at the rate that it had.")
_verb(
    "cancel",
    "Cancel a job.\n\nIt queues nothing more, and what no device has reported as delivered is taken back. A device "
    "whose reset was taken back is not wiped; it is unbound, and has to be bound again.",
    "What is not delivered is taken back now. To see how far that is:",
)
