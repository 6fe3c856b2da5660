"""Cost of stored heartbeats on both engines, without a broker: processor time, disk, and the log of the server.

What takes a heartbeat in from MQTT is the same for both (:mod:`bench.ingest` measures it). This measures the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.load import heartbeat
from gateway.bootstrap import first_start
from gateway.core.topics import Topics
from gateway.domain import devices, message_batches, messages
from gateway.models.devices import RegisterDevice
from gateway.runtime.postgres_server import PostgresServer
from gateway.settings.loading import Settings
from gateway.store import DATABASE_NAME, Context, Rules, Store, Tx, open_database

if TYPE_CHECKING:
    from gateway.core.postgres_address import PostgresAddress
    from gateway.store import Batch

GATEWAY_ID: Final = "gw_bench"
_ACTOR: Final = "bench"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of one heartbeat: processor seconds of gateway and database server, bytes on disk, bytes of the server's log."""

    gateway_seconds: float
    server_seconds: float
    disk_bytes: float
    log_bytes: float


def measure(senders: int, each: int) -> dict[str, Cost]:
    """Store ``each`` heartbeats of so many devices on each engine; return the costs by the engine's name.

    A transaction stores one heartbeat of each device: a thousand of them as a gateway that is busy, ten as one at rest.
    """
    return {
        "sqlite": asyncio.run(_on_sqlite(senders, each)),
        "postgresql": asyncio.run(_on_postgresql(senders, each)),
    }


async def _on_sqlite(senders: int, each: int) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), gateway_id=GATEWAY_ID)
        file = settings.data_dir / DATABASE_NAME
        await _send(settings, await _bound(settings, senders), range(1))
        before = file.stat().st_size
        seconds = await _send(settings, _ids(settings), range(1, 1 + each))
        count = senders * each
        return Cost(seconds / count, 0, (file.stat().st_size - before) / count, 0)


async def _on_postgresql(senders: int, each: int) -> Cost:
    with PostgresServer(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        where = server.address()
        settings = Settings(data_dir=Path(folder), gateway_id=GATEWAY_ID, database=where)
        await _send(settings, await _bound(settings, senders), range(1))
        disk, log, busy = _disk(where), _log(where), busy_seconds(server.pid)
        seconds, count = await _send(settings, _ids(settings), range(1, 1 + each)), senders * each
        used = (busy_seconds(server.pid) - busy, _disk(where) - disk, _log(where) - log)
        return Cost(seconds / count, *(each / count for each in used))


async def _bound(settings: Settings, count: int) -> list[str]:
    """Return the ids of new devices, each bound to a different end user."""
    _, project_id = first_start(settings)

    def bind(tx: Tx, number: int) -> str:
        device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=f"BENCH-{number:06}"), _ACTOR)
        devices.bind(tx, project_id, device.id, f"eu_{number}", _ACTOR)
        return device.id

    async with _store(settings) as store:
        return await store.write(lambda tx: [bind(tx, number) for number in range(count)])


def _ids(settings: Settings) -> list[str]:
    with closing(open_database(settings.registry)) as database:
        return [row["id"] for row in database.execute("SELECT id FROM devices ORDER BY pk").fetchall()]


def _store(settings: Settings) -> Store:
    return Store(settings.registry, Context(rules=Rules(gateway_id=GATEWAY_ID)))


async def _send(settings: Settings, ids: list[str], numbers: range) -> float:
    """Store a heartbeat of each device for each number, a batch for each number; return the processor seconds."""
    names = Topics()
    async with _store(settings) as store:
        before = time.process_time()
        for number in numbers:
            payload = heartbeat(number)
            batch = [messages.Message(names.heartbeat(each), payload) for each in ids]
            while batch:
                done, _ = await store.write_batch(partial(_stored, batch=batch, names=names))
                batch = batch[done:]
        return time.process_time() - before


def _stored(written: Batch, batch: list[messages.Message], names: Topics) -> tuple[int, list[messages.MessageResult]]:
    return message_batches.process_batch(written, batch, names)


def _disk(where: PostgresAddress) -> int:
    return int(_ask(where, "SELECT pg_database_size(current_database())"))


def _log(where: PostgresAddress) -> int:
    return int(_ask(where, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def _ask(where: PostgresAddress, question: str) -> str:
    import psycopg  # noqa: PLC0415 - an extra

    with psycopg.connect(where.url) as connection:
        (found,) = connection.execute(question.encode()).fetchone() or (0,)
        return str(found)


def busy_seconds(server: int) -> float:
    """Return the processor seconds of a server with its children, those that have ended included."""
    found = 0.0
    for pid in _children(server):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended, so it is in the server's sum
            found += _seconds(pid)
    return found + _seconds(server)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def _seconds(pid: int) -> float:
    """Return utime, stime and the same of ended children: fields 14 to 17 of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


if __name__ == "__main__":
    for senders, each in ((1_000, 50), (10, 500)):
        found = {name: vars(cost) for name, cost in measure(senders, each).items()}
        print(f"{senders} heartbeats a transaction: {json.dumps(found, indent=1)}")  # noqa: T201 - a tool
