"""Output of the command line: facts as lines or JSON, a fleet as a progress bar and a table."""

import asyncio
import contextlib
import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from device_sim.facts import Fact
from device_sim.fleet import Fleet
from device_sim.terminal_text import escaped
from device_sim.wire import rfc3339

TICK_SECONDS = 0.25
HIDDEN = frozenset({"state", "flash_written", "flash_erased", "status"})  # another fact says the same and more


def print_line(fact: Fact) -> None:
    """Print one fact for people; the time is UTC."""
    if fact.name not in HIDDEN:
        click.echo(f"{rfc3339(fact.at)[11:23]}  {escaped(fact.serial)}  {escaped(fact.text)}")


def print_json(fact: Fact) -> None:
    """Print one fact for a machine, in ASCII, since it may appear on a terminal."""
    click.echo(json.dumps(fact.as_dict()))


class FleetView:
    """Progress bar and table of a fleet. With `quiet` it prints nothing. It works without a terminal."""

    def __init__(self, fleet: Fleet, *, quiet: bool) -> None:
        self._fleet = fleet
        self._console = Console(quiet=quiet)

    async def run(self, duration: float | None) -> None:
        """Provision the fleet, then run it for `duration` seconds, or until cancelled."""
        with self._progress() as progress:
            provisioning_task = progress.add_task("provisioning", total=len(self._fleet.devices))
            await self._fleet.provision(on_done=lambda: self._show_provisioning(progress, provisioning_task))
            if len(self._fleet.failures) == len(self._fleet.devices):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duration), asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(progress, duration))
                    await self._fleet.run()

    def _show_provisioning(self, progress: Progress, task: TaskID) -> None:
        """Update the progress bar: count the bound devices, and name the failed ones beside them."""
        failed = len(self._fleet.failures)
        description = f"provisioning, {failed} failed" if failed else "provisioning"
        progress.update(task, completed=self._fleet.ready, description=description)

    def print_summary(self) -> None:
        """Print the final table. It has a column per radio, so that it fits a narrow terminal."""
        columns = [asdict(row) for row in self._fleet.summary()]
        table = Table("", *(str(column.pop("radio")) for column in columns), title=f"fleet of seed {self._fleet.seed}")
        for name in columns[0]:
            table.add_row(name.replace("_", " "), *(str(column[name]) for column in columns))
        self._console.print(table)

    async def _watch(self, progress: Progress, duration: float | None) -> None:
        alive_task = progress.add_task("alive", total=duration)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            online = sum(row.online for row in self._fleet.summary())
            progress.update(alive_task, advance=TICK_SECONDS, description=f"alive, {online} online")

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console)
