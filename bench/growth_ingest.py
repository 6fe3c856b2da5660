"""Ingest rate while the registry and its history grow: ``python -m bench.growth_ingest``.

1,000 devices send, before and after other devices and history are added. Their rows are far apart in the registry. Each
measurement stands beside its floor (``mosquitto_sub``, without any registry).
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import click

from bench import ingest
from bench.broker import mosquitto
from bench.machine import Usage, this_machine
from bench.registry import Registry, prepare
from gateway.store import DATABASE_NAME

SENDERS: Final = 1_000
_DAY_MS: Final = 86_400_000
_PER: Final = 100_000
_LONG_AGO: Final = 1_790_000_000_000
_SPREAD: Final = 1_000_000
"""Distance of the senders in the row numbers of devices; the other devices have the numbers in between."""


def spread(data_dir: Path, step: int) -> None:
    """Move each device ``step`` row numbers from the next, with all rows that refer to it."""
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as database, database:
        database.execute("PRAGMA defer_foreign_keys = ON")
        for table in ("tokens", "events", "outbox"):
            _move(database, table, "device_pk", step)
        _move(database, "devices", "pk", step)


def _move(database: sqlite3.Connection, table: str, column: str, step: int) -> None:
    """Renumber from the last to the first, so that no row takes a number still in use."""
    taken = database.execute(f"SELECT DISTINCT {column} FROM {table} ORDER BY 1 DESC").fetchall()  # noqa: S608 - a constant command
    for (pk,) in taken:
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (pk * step, pk))  # noqa: S608 - a constant command


def fill_devices(data_dir: Path, count: int) -> None:
    """Add bound devices between the senders, each with a token and a state."""
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as database, database:
        project, kid = database.execute("SELECT (SELECT id FROM projects), (SELECT kid FROM signing_keys)").fetchone()
        database.execute(
            """WITH RECURSIVE n (pk) AS (SELECT 1 UNION ALL SELECT pk + 1 FROM n WHERE pk < ?2),
                other (pk) AS (SELECT pk FROM n WHERE pk NOT IN (SELECT pk FROM devices))
                INSERT INTO devices (pk, id, project_id, serial_number, model, end_user_id, binding_generation,
                bound_at, created_at, updated_at) SELECT pk, 'dev_01' || upper(hex(randomblob(12))), ?1, 'FILL-' || pk,
                'bota_pin', 'eu_' || pk, 1, 1, 1, 1 FROM other""",
            (project, count),
        )
        database.execute(
            """INSERT INTO tokens (device_pk, generation, hash, mqtt_hash, broker_entry, state, grant_kid, created_at)
                SELECT pk, 1, randomblob(32), randomblob(32), '$6$' || hex(randomblob(44)), 'active', ?, 1 FROM devices
                WHERE serial_number LIKE 'FILL-%'""",
            (kid,),
        )
        database.execute(
            """INSERT INTO health (device_pk, battery_percent, storage_used_mb, storage_total_mb, signal_strength_dbm,
                recording_state, flags, last_heartbeat_at, last_seen_by)
                SELECT pk, 50, 512, 8192, -61, 'idle', 8, 1, 'wifi' FROM devices WHERE serial_number LIKE 'FILL-%'"""
        )


def fill_history(data_dir: Path, rows: int) -> None:
    """Add heartbeats of all devices in turn, as the gateway stores them."""
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -200000")
        database.execute("CREATE TEMP TABLE turn (n INTEGER PRIMARY KEY, pk INTEGER)")
        database.execute("INSERT INTO turn SELECT row_number() OVER (ORDER BY pk) - 1, pk FROM devices")
        (devices,) = database.execute("SELECT count(*) FROM turn").fetchone()
        for first in range(0, rows, _SPREAD):
            _fill_some(database, devices, first, min(rows, first + _SPREAD))
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_some(database: sqlite3.Connection, devices: int, first: int, end: int) -> None:
    with database:
        database.execute(
            """WITH RECURSIVE n (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)
                INSERT INTO heartbeats (id, previous, device_pk, received_at, sent_at, battery_percent,
                    storage_used_mb, storage_total_mb, signal_strength_dbm, firmware_version, device_state,
                    pending_recordings, flags, radio)
                SELECT i + 1, CASE WHEN i >= ?3 THEN i + 1 - ?3 END, pk, ?4 + i / 10, ?4 + i / 10, 50, 512, 8192, -61,
                    '1.4.2+bench', 'idle', 3, 8, 'wifi' FROM n JOIN turn ON turn.n = i % ?3""",
            (first, end, devices, _LONG_AGO),
        )
        database.execute(
            f"""INSERT OR IGNORE INTO history_days (device_pk, day, first_id)
                SELECT device_pk, received_at / {_DAY_MS}, min(id) FROM heartbeats WHERE id > ? GROUP BY 1, 2""",  # noqa: S608 - a number
            (first,),
        )
        database.execute(
            f"""UPDATE health SET history_id = b.id, history_day = b.received_at / {_DAY_MS}
                FROM (SELECT device_pk, max(id) AS id, received_at FROM heartbeats WHERE id > ? GROUP BY device_pk) AS b
                WHERE b.device_pk = health.device_pk""",  # noqa: S608 - a number
            (first,),
        )


async def _measure(registry: Registry, folder: Path, each: int, first: int) -> str:
    """Return one line: rate beside its floor, CPU, memory, and the time from start to the first stored heartbeat."""
    floor = await ingest.floor(registry, folder / "floor", each)
    total = each * len(registry.devices)
    async with (
        mosquitto(folder / "broker", registry.broker_entries) as broker,
        ingest.loading(registry, broker, each, first) as load,
    ):
        started = time.monotonic()
        async with ingest.subject_on(registry, broker) as subject:
            ready = time.monotonic() - started
            before, held = subject.cpu_seconds(), _highest(registry.data_dir)
            await load.tell("go")
            async with asyncio.TaskGroup() as group:
                one = group.create_task(ingest.stored(registry.data_dir, subject, 1, held))
                all_of_them = group.create_task(ingest.stored(registry.data_dir, subject, total, held))
                sent = group.create_task(ingest.sent_by(load))
            cpu, memory = subject.cpu_seconds() - before, subject.resident_megabytes()
    began = sent.result().began
    rate = total / (all_of_them.result() - began)
    return (
        f"{rate:9,.0f}/s  {rate / floor.messages_per_second:5.2f} of the floor  {cpu / total * _PER:5.2f} s CPU for "
        f"{_PER:,}  {memory:5.0f} MB  first stored {ready + one.result() - began:4.2f} s after the start"
    )


def _highest(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as database:
        return int(database.execute("SELECT coalesce(max(id), 0) FROM heartbeats").fetchone()[0])


async def _run(devices: int, history: int, rounds: int, each: int, directory: Path) -> None:
    click.echo(str(await this_machine(directory)))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=directory) as name:
        folder, before = Path(name), Usage.now()
        small = prepare(folder / "small", SENDERS)
        large = small.copy(folder / "large")
        spread(large.data_dir, devices // SENDERS)
        fill_devices(large.data_dir, devices)
        fill_history(large.data_dir, history)
        size = (large.data_dir / DATABASE_NAME).stat().st_size / 1e9
        click.echo(f"{devices:,} devices and {history:,} heartbeats are {size:.2f} GB.")
        for number in range(rounds):
            for what, registry in (("small", small), ("large", large)):
                line = await _measure(registry, folder / f"{number}-{what}-{secrets.token_hex(2)}", each, number * each)
                click.echo(f"round {number + 1}  {what}  {line}")
        click.echo(f"Other programs used {Usage.now().others_since(before):.0%} of the cores.")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--devices",
    type=click.IntRange(min=2_000),
    default=100_000,
    show_default=True,
    help="Devices in the large registry.",
)
@click.option(
    "--history",
    type=click.IntRange(min=0),
    default=2_000_000,
    show_default=True,
    help="Heartbeats in the large registry.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Number of rounds.")
@click.option(
    "--each",
    type=click.IntRange(1, ingest.MOST_EACH),
    default=50,
    show_default=True,
    help="Heartbeats from each of the 1,000 senders.",
)
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
              default=tempfile.gettempdir, help="Folder of the registries during the run.")  # fmt: skip
def main(*, devices: int, history: int, rounds: int, each: int, directory: Path) -> None:
    """Measure ingest beside a small registry and beside a large one, in turns."""
    asyncio.run(_run(devices, history, rounds, each, directory))


if __name__ == "__main__":
    main()
