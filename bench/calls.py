"""Latency of the API's calls as the registry grows, on both engines: ``python -m bench.calls``.

The gateways of all sizes run at the same time, and a call is sent to each of them in turn. So other work on the machine
delays all sizes alike, and the ratios say how a call grows. Each gateway has the embedded broker and no load.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from bench import large
from bench.caller import Caller, caller
from bench.figures import percentile
from bench.machine import Usage, this_machine
from bench.process import BenchError
from bench.server import OK, Server, gateway
from gateway.core.postgres_address import PostgresAddress
from gateway.models.devices import MAX_OFFSET, ListDevices
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import DATABASE_NAME, View, device_list, open_database

ENGINES: Final = ("sqlite", "postgresql")
_MS: Final = 1_000
_WARM_UP: Final = 3
_PAGE: Final = 25
_HEAD: Final = """# The API as the registry grows

Written by `make bench-growth`. Milliseconds of a call over HTTP, p50 / p99, on one connection. The gateways of all
sizes run at the same time and are asked in turn, so ratios mean more than milliseconds. *Ratio*: p50 / p99 of the
largest registry by those of the smallest."""


@dataclass
class Subject:
    """A gateway on a registry of some size, and what its calls took so far, in milliseconds."""

    size: int
    server: Server
    api_key: str
    paths: dict[str, str]
    ready_seconds: float
    bytes_per_device: float | None
    taken: dict[str, list[float]] = field(default_factory=dict)

    async def call(self, name: str, http: Caller) -> float:
        """Call once; return the milliseconds.

        Raises:
            BenchError: it did not answer 200.
        """
        began = time.perf_counter()
        status = await http.call("GET", self.paths[name])
        if status != OK:
            raise BenchError(f"GET {self.paths[name]} answered {status}")
        return (time.perf_counter() - began) * _MS


def paths(view: View) -> dict[str, str]:
    """Return the path of each call by its name; devices are those in the middle of the registry."""
    count: int = view.value("SELECT max(pk) FROM devices")
    found = view.one("SELECT * FROM devices WHERE pk >= ? AND bound_at IS NOT NULL ORDER BY pk LIMIT 1", count // 2)
    assert found is not None
    by_name = ListDevices(sort="name", limit=1, offset=min(count, MAX_OFFSET) // 2)
    (last, _) = device_list.page(view, found["project_id"], by_name)
    one, devices = f"/v1/devices/{found['id']}", "/v1/devices"
    lists: dict[str, dict[str, object]] = {
        "list": {},
        "list, by status": {"status": "unbound"},
        "list, by connection": {"connection": "online"},
        "list, by serial number": {"serial_number": found["serial_number"]},
        "list, with total": {"total": "true"},
        "list, by cursor and name": {"sort": "name", "cursor": device_list.cursor(by_name, last)},
        "list, offset near the end": {"offset": min(count, MAX_OFFSET) - _PAGE},
        "filter: end user, none": {"end_user_id": "eu_nobody"},
        "filter: model, none": {"model": "no_such_model"},
        "filter: model, few": {"model": large.RARE_MODEL},
        "filter: model and status, few": {"model": large.RARE_MODEL, "status": "bound"},
        "filter: condition": {"condition": "low_battery"},
        "filter: never heard and online": {"seen": "false", "connection": "online"},
        "filter: tag": {"tag": "site-7"},
        "search: serial number": {"search": found["serial_number"]},
        "search: part of an id": {"search": found["id"][-8:]},
        "search: part of an end user": {"search": found["end_user_id"][-8:]},
        "search: none": {"search": "no such text"},
        "search: none of digits": {"search": "99999999"},
    }
    return {
        "device": one,
        "state": f"{one}/state",
        "history": f"{one}/heartbeats",
        "events": f"{one}/events",
        "commands": f"{one}/commands",
        "stats": f"{devices}/stats",
        **{name: f"{devices}?{urlencode(query)}" if query else devices for name, query in lists.items()},
    }


@asynccontextmanager
async def _subject(folder: Path, location: Path | PostgresAddress, size: int) -> AsyncIterator[Subject]:
    """Run a gateway on a new registry of this size."""
    data_dir = folder / f"data-{size}"
    data_dir.mkdir(mode=0o700)
    api_key = large.create(data_dir, data_dir if isinstance(location, Path) else location, size)
    with closing(open_database(data_dir if isinstance(location, Path) else location)) as connection:
        asked = paths(View(connection))
    file = data_dir / DATABASE_NAME
    size_of_one = file.stat().st_size / size if file.exists() else None
    more = {} if isinstance(location, Path) else {"GATEWAY_DATABASE": location.url}
    began = time.monotonic()
    async with gateway(data_dir, None, more) as server:
        yield Subject(size, server, api_key, asked, time.monotonic() - began, size_of_one)


def _locations(stack: ExitStack, engine: str, folder: Path, sizes: Sequence[int]) -> Iterator[Path | PostgresAddress]:
    """Yield a place for a registry of each size: this folder, or a new database of one server."""
    if engine == "sqlite":
        yield from [folder] * len(sizes)
        return
    import psycopg  # noqa: PLC0415 - for this engine alone

    server = stack.enter_context(PostgresServer("max_wal_size=4GB", "shared_buffers=256MB", durable=True))
    for size in sizes:
        with psycopg.connect(server.address().url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE r{size}".encode())
        yield server.address(f"r{size}")


async def measure(engine: str, folder: Path, sizes: Sequence[int], rounds: int) -> list[Subject]:
    """Measure every call on registries of these sizes; return them with what was measured.

    Raises:
        BenchError: a call was refused, or a gateway failed.
    """
    with ExitStack() as stack:
        async with AsyncExitStack() as running:
            subjects = [
                await running.enter_async_context(_subject(folder, location, size))
                for location, size in zip(_locations(stack, engine, folder, sizes), sizes, strict=True)
            ]
            callers = [
                (each, await running.enter_async_context(caller(each.server.port, each.api_key))) for each in subjects
            ]  # connected when all are made: an idle connection would be closed
            for name in subjects[0].paths:
                for number in range(_WARM_UP + rounds):
                    for each, http in callers:
                        took = await each.call(name, http)
                        if number >= _WARM_UP:
                            each.taken.setdefault(name, []).append(took)
            for each in subjects:
                each.taken["memory"] = [each.server.process.resident_megabytes()]
    return subjects


def table(engine: str, subjects: Sequence[Subject]) -> list[str]:
    """Return the lines of a table in Markdown."""
    first, last = subjects[0], subjects[-1]
    lines = [
        f"| {engine} | " + " | ".join(f"{each.size:,}" for each in subjects) + " | ratio |",
        "|---|" + "---:|" * (len(subjects) + 1),
    ]
    for name in first.paths:
        cells = [_both(each.taken[name]) for each in subjects]
        ratio = " / ".join(f"{_at(last, name, share) / _at(first, name, share):.1f}" for share in (50, 99))
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio} |")
    lines.append("| start to ready, s | " + " | ".join(f"{each.ready_seconds:.1f}" for each in subjects) + " | |")
    lines.append("| memory, MB | " + " | ".join(f"{each.taken['memory'][0]:.0f}" for each in subjects) + " | |")
    if last.bytes_per_device is not None:
        lines.append(
            "| bytes per device | " + " | ".join(f"{each.bytes_per_device:,.0f}" for each in subjects) + " | |"
        )
    return lines


def _both(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):.1f} / {percentile(values, 99):.1f}"


def _at(subject: Subject, name: str, share: float) -> float:
    return percentile(subject.taken[name], share)


async def _run(engines: Sequence[str], sizes: Sequence[int], rounds: int, directory: Path) -> str:
    before, parts = Usage.now(), [_HEAD]
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
            subjects = await measure(engine, Path(name), sizes, rounds)
        parts.append("\n".join(table(engine, subjects)))
        click.echo(parts[-1])
    others = Usage.now().others_since(before)
    parts.append(
        f"{rounds} calls of each. {await this_machine(directory)}\nOther programs used {others:.0%} of the cores."
    )
    return "\n\n".join(parts) + "\n"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--size", "sizes", multiple=True, type=click.IntRange(min=100), default=(1_000, 100_000), show_default=True,
    help="Devices of a registry. Can be repeated.",
)  # fmt: skip
@click.option(
    "--engine", "engines", multiple=True, type=click.Choice(ENGINES), default=ENGINES, show_default=True,
    help="Database engine. Can be repeated.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=200, show_default=True, help="Number of calls of each.")
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
              default=tempfile.gettempdir, help="Folder of the registries during the run.")  # fmt: skip
@click.option("--report", "report_to", type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
              help="Also write growth.md into this folder, which is made if it is missing.")  # fmt: skip
def main(
    *, sizes: tuple[int, ...], engines: tuple[str, ...], rounds: int, directory: Path, report_to: Path | None
) -> None:
    """Measure the API's calls beside registries of several sizes."""
    try:
        report = asyncio.run(_run(engines, sorted(sizes), rounds, directory))
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    if report_to is not None:
        report_to.mkdir(parents=True, exist_ok=True)
        (report_to / "growth.md").write_text(report)


if __name__ == "__main__":
    main()
