"""A gateway whose write the server undoes because of another session, on PostgreSQL.

PostgreSQL decides for itself whom it undoes. Here it is the gateway each time: the other session never looks for a
deadlock, and the gateway does so at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.core.postgres_address import PostgresAddress
from gateway.domain import devices
from gateway.domain.plain_heartbeats import store_plain
from gateway.observability.metrics import Metrics
from gateway.store import Batch, Context, Store, StoreListener, Tx, View, key_sql, outbox_sql, reset_sql
from gateway.store.engine import Ahead
from gateway.store.measurements import Measure
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.begin import IDLE_MS
from tests.cluster.batches import NAMES, WAITING, beats
from tests.cluster.races import Subject, bound
from tests.support.postgres import database, execute, server
from tests.support.wait import eventually

RENAME = "UPDATE devices SET name = %s WHERE pk = %s"


class Told(StoreListener):
    """Notes what it is told after commits."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.outbox: list[set[str]] = []
        self.events = 0

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Note the kinds."""
        self.outbox.append(set(kinds))

    def notify_events(self) -> None:
        """Count it."""
        self.events += 1

    def notify_measured(self, samples: list[Measure]) -> None:
        """Count what they say, as the gateway does."""
        self.metrics.take(samples)

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@dataclass
class Meeting:
    """A gateway, two bound devices of one person, and what holds a write after the first of them."""

    where: PostgresAddress
    store: Store
    told: Told
    ones: list[Subject]
    looking: psycopg.AsyncConnection[Any]
    inside: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    # --- writes of the gateway ----------------------------------------------------------------------------------------

    def hold_nothing(self) -> None:
        """Let the writes below run without a stop."""
        self.go_on.set()
        self.over.set()

    def _begin(self) -> None:
        """Run again only when the other session is over. Else the write could meet it a second time."""
        if self.go_on.is_set():
            self.over.wait()

    def _reset(self, tx: Tx, one: Subject) -> str | None:
        found = devices.reset(tx, one.project_id, one.id, "key_1")
        tx.connection.flush()
        self._hold(one)
        return found.name

    def _hold(self, one: Subject) -> None:
        if one is self.ones[0]:
            self.inside.set()
            self.go_on.wait()

    async def reset_both(self) -> list[str | None]:
        """Reset both devices in one transaction; return the names that this transaction has read."""
        reads = [read for one in self.ones for read in _ahead(one).reads]

        def write(tx: Tx) -> list[str | None]:
            self._begin()
            return [self._reset(tx, one) for one in self.ones]

        return await self.store.write(write, ahead=Ahead(reads))

    async def reset_each(self) -> list[str | None]:
        """Reset each by a separate write. Both wait for the same commit."""
        busy, free = threading.Event(), threading.Event()

        def keep_busy(_: Tx) -> None:
            busy.set()
            free.wait()

        before = asyncio.create_task(self.store.write(keep_busy))
        await eventually(busy.is_set, "the writer is busy")

        def write(tx: Tx, one: Subject) -> str | None:
            if one is self.ones[0]:
                self._begin()
            return self._reset(tx, one)

        writes = [self.store.write(partial(write, one=one), ahead=_ahead(one)) for one in self.ones]
        both = asyncio.gather(*writes)
        await asyncio.sleep(0)  # both are in the queue
        free.set()
        await before
        return await both

    async def beat_both(self) -> int:
        """Store a heartbeat of each device beside batches of others; return how many were stored."""

        def write(batch: Batch) -> int:
            self._begin()
            stored = 0
            for one in self.ones:
                stored += len(store_plain(batch, beats(one.id, percent=50), NAMES).places)
                batch.tx.connection.flush()
                self._hold(one)
            return stored

        return await self.store.write_batch(write, shared=True)

    # --- what they meet -----------------------------------------------------------------------------------------------

    async def in_a_deadlock(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Run a write that locks the devices in order, against a session that renames them in the other order."""
        async with await psycopg.AsyncConnection.connect(self.where.url) as session:
            await session.execute("SET LOCAL deadlock_timeout = '1h'")
            await session.execute(RENAME, ("name 1", self.ones[1].pk))
            writing = asyncio.ensure_future(write())
            try:
                await eventually(self.inside.is_set, "the write has locked the first device")
                last = asyncio.create_task(session.execute(RENAME, ("name 0", self.ones[0].pk)))
                await eventually(self._one_waits, "the session waits for the write")
            finally:
                self.go_on.set()
            try:
                await last
                await session.commit()
            finally:
                self.over.set()
            return await writing

    async def with_an_old_view(self, write: Callable[[], Awaitable[Any]]) -> Any:
        """Run a write that has begun to read when another gateway commits new names."""
        self.hold_nothing()
        renamed, commit = threading.Event(), threading.Event()

        def rename(tx: Tx) -> None:
            for number, one in enumerate(self.ones):
                tx.run("UPDATE devices SET name = ? WHERE pk = ?", f"name {number}", one.pk)
            renamed.set()
            commit.wait()

        async with Store(self.where, Context()) as other:
            renaming = asyncio.create_task(other.write(rename))
            try:
                await eventually(renamed.is_set, "the other gateway has renamed the devices")
                writing = asyncio.ensure_future(write())
                await eventually(self._one_waits, "the write waits for the other gateway")
            finally:
                commit.set()
            await renaming
            return await writing

    async def _one_waits(self) -> bool:
        found = await (await self.looking.execute(WAITING)).fetchone()
        return found == (1,)

    # --- what is there afterwards -------------------------------------------------------------------------------------

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the registry."""
        return await self.store.read(lambda view: [tuple(row) for row in view.all(sql)])


def _ahead(one: Subject) -> Ahead:
    """What the API reads ahead of a reset."""
    return Ahead((lambda view: reset_sql.target(view, one.project_id, one.id),), one.id)


@asynccontextmanager
async def meeting(folder: Path, patch: pytest.MonkeyPatch, *settings: str) -> AsyncIterator[Meeting]:
    """Start a gateway that notices a deadlock at once. A transaction may be held for any time.

    ``settings`` are those of the database.
    """
    for name in ("BEGIN", "BEGIN_SHARED"):
        patch.setattr(postgres_connection, name, getattr(postgres_connection, name).replace(str(IDLE_MS), "0"))
    where, told = database(folder), Told()
    for setting in ("deadlock_timeout = '10ms'", *settings):
        execute(server(), f"ALTER DATABASE {where.database} SET {setting}")
    async with Store(where, Context(), told) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "ward"))
        ones = [await store.write(lambda tx, n=n: bound(tx, project_id, f"S{n}")) for n in range(2)]  # type: ignore[misc]
        await store.write(lambda tx: tx.run("DELETE FROM outbox"))
        told.__init__()  # type: ignore[misc]
        async with await psycopg.AsyncConnection.connect(where.url, autocommit=True) as looking:
            yield Meeting(where, store, told, ones, looking)


def open_resets(view: View, now: int) -> int:  # noqa: ARG001 - as reads after a commit are called
    """Count open resets, as a worker does that waits for them."""
    return int(view.value("SELECT count(*) FROM commands WHERE type = 'factory_reset' AND status = 'pending'"))


WORKER = (outbox_sql.COMMAND,)
