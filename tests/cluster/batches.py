"""Two gateways on one PostgreSQL registry, whose batches of heartbeats are held inside of their transactions."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.core.postgres_address import PostgresAddress
from gateway.core.topics import Topics
from gateway.domain import devices, message_batches
from gateway.domain.messages import Message
from gateway.domain.plain_heartbeats import Stored, store_plain
from gateway.models.devices import RegisterDevice
from gateway.store import Batch, Context, Store, StoreListener, Tx, key_sql
from gateway.store.measurements import CONFLICT, Measure
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.begin import IDLE_MS
from gateway.store.postgres.connection import PostgresConnection
from tests.support.postgres import database
from tests.support.wait import eventually

NAMES = Topics()
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Conflicts(StoreListener):
    """Counts transactions that were run again."""

    def __init__(self) -> None:
        self.number = 0

    def notify_measured(self, samples: list[Measure]) -> None:
        """Count them."""
        self.number += sum(each.name == CONFLICT for each in samples)


@dataclass
class Running:
    """A batch in its transaction."""

    task: asyncio.Task[Stored]
    inside: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    async def end(self) -> list[int]:
        """Let it commit; return the places that it has stored."""
        self.go_on.set()
        return (await self.task).places


@dataclass
class Two:
    """Two gateways on one registry."""

    address: PostgresAddress
    one: Store
    other: Store
    conflicts: Conflicts
    looking: PostgresConnection

    async def device(self, serial: str, project: str = "ward") -> str:
        """A bound device; its id."""
        return await self.one.write(lambda tx: _bound(tx, serial, project))

    async def online(self, *ids: str) -> None:
        """Let these devices be online, with 50 percent."""
        await self.one.write_batch(lambda batch: message_batches.process_batch(batch, beats(*ids, percent=50), NAMES))

    @asynccontextmanager
    async def batch(self, store: Store, *ids: str, percent: int = 50) -> AsyncIterator[Running]:
        """A batch of this gateway with a heartbeat of each of these devices, held when all is written."""
        inside, go_on = threading.Event(), threading.Event()

        def held(batch: Batch) -> Stored:
            stored = store_plain(batch, beats(*ids, percent=percent), NAMES)
            batch.tx.connection.flush()
            inside.set()
            go_on.wait()
            return stored

        running = Running(asyncio.create_task(store.write_batch(held, shared=True)), inside, go_on)
        try:
            yield running
        finally:
            go_on.set()
            await asyncio.wait((running.task,))

    async def arrives(self, running: Running) -> bool:
        """Wait until the batch has written all; return False when it waits for another transaction instead."""
        await eventually(lambda: running.inside.is_set() or self._is_waiting(), "the batch is at the database")
        return running.inside.is_set()

    def _is_waiting(self) -> bool:
        return bool(self.looking.execute(WAITING).fetchone()[0])

    async def history(self, device_id: str) -> list[tuple[Any, ...]]:
        """Percent, and whether the row before it is its predecessor, of each heartbeat of a device."""
        sql = """SELECT b.battery_percent, b.previous IS NOT DISTINCT FROM lag(b.id) OVER (ORDER BY b.id)
            FROM heartbeats b JOIN devices d ON d.pk = b.device_pk WHERE d.id = ? ORDER BY b.id"""
        return [tuple(row) for row in await self.one.read(lambda view: view.all(sql, device_id))]

    async def newest(self, device_id: str) -> Any:
        """The newest percentage, if the newest heartbeat of all is that of the state."""
        sql = """SELECT h.battery_percent FROM health h JOIN devices d ON d.pk = h.device_pk
            WHERE d.id = ? AND h.history_id = (SELECT max(id) FROM heartbeats b WHERE b.device_pk = d.pk)"""
        return await self.one.read(lambda view: view.value(sql, device_id))


def _bound(tx: Tx, serial: str, project: str) -> str:
    found = tx.value("SELECT id FROM projects WHERE name = ?", project)
    project_id = found or key_sql.create_project(tx, project)
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_1")
    devices.bind(tx, project_id, device.id, "eu_1", "key_1")
    return str(device.id)


def beats(*ids: str, percent: int) -> list[Message]:
    """A heartbeat of each of these devices."""
    return [Message(NAMES.heartbeat(each), json.dumps({"battery_percent": percent}).encode()) for each in ids]


@asynccontextmanager
async def two_gateways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """Two gateways. A test may hold a transaction for longer than the server lets a gateway do."""
    for name in ("BEGIN", "BEGIN_SHARED"):
        begin = getattr(postgres_connection, name)
        monkeypatch.setattr(postgres_connection, name, begin.replace(str(IDLE_MS), "0"))
    where, conflicts = database(folder), Conflicts()
    async with Store(where, Context(), conflicts) as one, Store(where, Context(), conflicts) as other:
        with closing(PostgresConnection(where)) as looking:
            yield Two(where, one, other, conflicts, looking)
