"""Command ``python -m bench.growth``."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from bench.expected import told_in_a_line
from bench.growth.plan import Plan
from bench.growth.report import Report, markdown, write
from bench.growth.run import ENGINES, Notes, measure
from bench.machine import Usage, this_machine

_NOTES: Final = Console(stderr=True, highlight=False)
_DEFAULT: Final = Plan()
_QUICK: Final = Plan(calls=20, rest_seconds=5, senders=200, each=20, resets=10, binds=1, revocations=1, burst_seconds=5)
_MOST_HISTORY: Final = 1_000


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--size", "sizes", multiple=True, type=click.IntRange(min=50), default=(1_000, 100_000),
              show_default=True, help="Devices of a registry. Can be repeated.")  # fmt: skip
@click.option("--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES, show_default=True,
              help="Database engine. Can be repeated.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=_DEFAULT.rounds, show_default=True,
              help="Number of rounds.")  # fmt: skip
@click.option("--history", type=click.IntRange(0, _MOST_HISTORY), default=_DEFAULT.history, show_default=True,
              help="Heartbeats of each device in the history.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Few calls and binds: to try it.")
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
              default=tempfile.gettempdir, help="Folder of the registries during the run.")  # fmt: skip
@click.option("--report", "report_to", type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
              help="Also write growth-ENGINE.md, .json and plots into this folder, which is made.")  # fmt: skip
def main(
    *,
    sizes: tuple[int, ...],
    engines: tuple[str, ...],
    rounds: int,
    history: int,
    quick: bool,
    directory: Path,
    report_to: Path | None,
) -> None:
    """Measure what everything costs beside registries of several sizes, in turns."""
    plan = replace(_QUICK if quick else _DEFAULT, rounds=rounds, history=history)
    for engine in engines:
        with told_in_a_line(), tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
            report = asyncio.run(run(engine, Path(name), sorted(set(sizes)), plan, _notes(engine)))
        click.echo(markdown(report))
        if report_to is not None:
            write(report, report_to)
        if report.growth.ended_by is not None:
            raise click.ClickException(report.growth.ended_by)


async def run(engine: str, folder: Path, sizes: Sequence[int], plan: Plan, notes: Notes) -> Report:
    """Measure on an engine, with registries in this folder.

    Raises:
        BenchError: a program failed, or something was refused or lost.
    """
    plan, machine = plan.fitting(sizes[0]), await this_machine(folder)
    before, began = Usage.now(), time.monotonic()
    found = await measure(engine, folder, sizes, plan, notes)
    others = Usage.now().others_since(before, found.server_seconds)
    return Report(found, plan, machine, others, time.monotonic() - began)


def _notes(engine: str) -> Notes:
    """Return a function that prints what is done, with the time since the start."""
    began = time.monotonic()

    def note(what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        _NOTES.print(f"{engine} {minutes:3}:{seconds:02}  {what}", style="dim")

    return note


if __name__ == "__main__":
    main()
