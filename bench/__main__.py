"""``python -m bench``: every measurement once a round, the rounds one after the other, then the table."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from bench import ingest, memory, reset, throughput
from bench.figures import Figure
from bench.machine import Usage, this_machine
from bench.process import BenchError
from bench.registry import Registry, prepare
from bench.report import Report, as_json, show
from broker_config.local import NoMosquittoError

DEVICES: Final = 1_000
_EXPECTED: Final = (BenchError, NoMosquittoError)
_NOTES: Final = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Size:
    """How much is measured in a round: heartbeats from each of 1,000 devices, resets one by one, and many at once."""

    rounds: int
    heartbeats_each: int
    resets: int
    at_once: int


FULL: Final = Size(rounds=3, heartbeats_each=ingest.MOST_EACH, resets=500, at_once=2_000)
QUICK: Final = Size(rounds=2, heartbeats_each=20, resets=100, at_once=500)


@dataclass(frozen=True)
class Registries:
    """Made once: 1,000 devices, those to be reset one by one, and those many at once."""

    fleet: Registry
    few: Registry
    many: Registry


@dataclass
class Rounds:
    """What has been measured so far."""

    ingest: list[ingest.Round] = field(default_factory=list)
    reset: list[reset.Round] = field(default_factory=list)
    throughput: list[throughput.Round] = field(default_factory=list)
    memory: list[memory.Round] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    def figures(self, size: Size) -> tuple[Figure, ...]:
        """Every line of the table."""
        return (
            *ingest.figures(self.ingest, size.heartbeats_each, DEVICES),
            *reset.figures(self.reset),
            *throughput.figures(self.throughput),
            *memory.figures(self.memory),
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rounds", type=click.IntRange(min=1), help=f"How often.  [default: {FULL.rounds}; {QUICK.rounds} with --quick]"
)
@click.option("--quick", is_flag=True, help="Fewer messages and rounds: under 60 s, good for ratios only.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=tempfile.gettempdir,
    help="Where to keep the databases meanwhile; a disk, since memory is always quick.  [default: for temporary files]",
)
@click.option("--json", "as_document", is_flag=True, help="Print JSON, for a machine.")
def main(*, rounds: int | None, quick: bool, as_document: bool, directory: Path) -> None:
    """Measure the gateway on this machine, each figure beside a floor from the same round."""
    size = QUICK if quick else FULL
    try:
        report = asyncio.run(_run(size, rounds or size.rounds, directory, quick=quick))
    except ExceptionGroup as group:
        expected, unexpected = group.split(_EXPECTED)
        if expected is None or unexpected is not None:
            raise
        raise click.ClickException(_first(expected)) from group
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error
    if as_document:
        click.echo(as_json(report))
    else:
        show(report, Console())


def _first(error: BaseException) -> str:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)


async def _run(size: Size, rounds: int, directory: Path, *, quick: bool) -> Report:
    machine, measured = await this_machine(directory), Rounds()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
        folder = Path(name)
        fleet = prepare(folder / "fleet", DEVICES)
        few = prepare(folder / "few", size.resets + reset.WARM_UP)
        many = prepare(folder / "many", size.at_once + throughput.WARM_UP)
        for number in range(1, rounds + 1):
            _NOTES.print(f"round {number} of {rounds}", style="dim")
            await _round(measured, size, Registries(fleet, few, many), folder / str(number))
    return Report(machine, rounds, quick, tuple(measured.others), measured.figures(size))


async def _round(measured: Rounds, size: Size, registries: Registries, folder: Path) -> None:
    before = Usage.now()
    measured.ingest.append(await ingest.measure(registries.fleet, folder / "ingest", size.heartbeats_each))
    measured.reset.append(await reset.measure(registries.few, folder / "reset"))
    measured.throughput.append(await throughput.measure(registries.many, folder / "throughput"))
    measured.memory.append(await memory.measure(registries.fleet, folder / "memory"))
    measured.others.append(Usage.now().others_since(before))


if __name__ == "__main__":
    main()
