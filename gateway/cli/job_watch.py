"""``gateway jobs watch``: follow a job to its end, with a progress bar on a terminal."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Self

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.command_wait import STILL_OPEN
from gateway.cli.devices import json_option
from gateway.cli.event_follow import passes
from gateway.cli.jobs import ended, job_argument, print_job, waiting
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION
from gateway.cli.suggestions import again
from gateway.errors import GatewayError
from gateway.models.jobs import JobStatus

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

ABORTED: Final = 9
"""Exit code: the job aborted itself."""
CANCELLED: Final = 10
"""Exit code: the job was cancelled."""
_EXIT_CODES: Final = {JobStatus.COMPLETED: 0, JobStatus.ABORTED: ABORTED, JobStatus.CANCELLED: CANCELLED}
_POLL_SECONDS: Final = 1.0
_LIMITED_SECONDS: Final = 5.0
_SHOWN: Final = ("queued", "delivered", "executed", "failed", "cancelled", "skipped")
EPILOG: Final = """\b
Examples:
  gateway jobs watch job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB
  gateway jobs watch job_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --timeout 1h --json | jq -c .counts

\b
Exit codes:
  0   the job is completed
  8   it was not final within --timeout; it goes on
  9   it aborted itself, since too many devices failed
  10  it was cancelled
"""


@click.command(cls=SettingsCommand, name="watch", epilog=EPILOG)
@job_argument
@click.option(
    "--timeout", "timeout_ms", type=DURATION, metavar="DURATION",
    help="How long, such as 90s or 10m; none: until the job is final, or Ctrl-C.",
)  # fmt: skip
@json_option
@with_gateway
def watch(place: Place, *, job_id: str, timeout_ms: int | None, as_json: bool) -> int:
    """Follow a job until it is final.

    On a terminal a bar shows how many devices have their outcome; otherwise each change is a line on stderr. With
    --json each change is a JSON document on its own line on stdout. Ctrl-C ends this, not the job.
    """
    return follow(place, job_id, timeout_ms, as_json=as_json)


def follow(place: Place, job_id: str, timeout_ms: int | None = None, *, as_json: bool) -> int:
    """Follow a job until it is final or the time is up; return the exit code."""
    job = place.run(lambda api: _follow(api, job_id, timeout_ms, as_json=as_json))
    if not as_json:
        print_job(job, as_json=False)
    status = JobStatus(job["status"])
    queued = job["counts"]["queued"]
    if status is JobStatus.ABORTED and queued:
        who = "1 device still gets" if queued == 1 else f"{queued:,} devices still get"
        output.note(f"{who} what was queued. To take that back: {again('jobs', 'cancel', job_id)}")
    return _EXIT_CODES.get(status, STILL_OPEN)


async def _follow(api: ApiClient, job_id: str, timeout_ms: int | None, *, as_json: bool) -> Json:
    until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1_000
    job = await api.get(at("jobs", job_id))
    with _display(job, as_json=as_json) as display:
        while True:
            display.show(job)
            if JobStatus(job["status"]).is_final or (until is not None and time.monotonic() >= until):
                return job
            await asyncio.sleep(_POLL_SECONDS)
            job = await _again(api, job_id, display) or job


async def _again(api: ApiClient, job_id: str, display: _Lines) -> Json | None:
    """Return the job as it is now, or None when a later try may succeed: the job goes on without this process."""
    try:
        return await api.get(at("jobs", job_id))
    except GatewayError as error:
        if not passes(error):
            raise
        display.say(error.message)
        await asyncio.sleep(_LIMITED_SECONDS)
        return None


def _display(job: Json, *, as_json: bool) -> AbstractContextManager[_Lines]:
    if as_json:
        return nullcontext(_Documents())
    return _Bar(job) if sys.stderr.isatty() else nullcontext(_Lines())


class _Lines:
    """A line on stderr for each change."""

    def __init__(self) -> None:
        self._shown: Any = None
        self._said: str | None = None

    def show(self, job: Json) -> None:
        """Show the job, if it has changed."""
        shown = (job["status"], job["counts"], job["rate_per_minute"])
        if shown != self._shown:
            self._shown = shown
            self.changed(job)

    def changed(self, job: Json) -> None:
        """Show a job that has changed."""
        output.note(f"{ended(job):,} of {job['counts']['total']:,}  {summary(job)}")

    def say(self, text: str) -> None:
        """Say why nothing new is known; the same text once."""
        if text != self._said:
            self._said = text
            output.note(text)


class _Documents(_Lines):
    """A JSON document on stdout for each change."""

    def changed(self, job: Json) -> None:
        """Print it at once, through a pipe too."""
        click.echo(json.dumps(job))
        sys.stdout.flush()


class _Bar(_Lines):
    """A bar on the terminal: targets that have their outcome."""

    def __init__(self, job: Json) -> None:
        super().__init__()
        self._bar: Any = click.progressbar(
            length=max(1, job["counts"]["total"]), label="devices", file=sys.stderr, show_eta=False, show_pos=True,
            item_show_func=lambda job: None if job is None else summary(job),
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def changed(self, job: Json) -> None:
        """Move the bar."""
        self._bar.update(ended(job) - self._bar.pos, job)
        self._bar.render_progress()  # also when the counts have changed, and no more devices are done


def summary(job: Json) -> str:
    """Return status, rate and counts in words; counts of zero are left out."""
    counts = {"waiting": waiting(job), **{name: job["counts"][name] for name in _SHOWN}}
    rate = None if job["rate_per_minute"] is None else f"{job['rate_per_minute']:,}/min"
    words = [f"{number:,} {name}" for name, number in counts.items() if number]
    return ", ".join(filter(None, (job["status"], rate, *words)))
