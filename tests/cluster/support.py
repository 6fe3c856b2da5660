"""Two gateways at one registry, on either engine, and time that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.cluster.lease import Lease, Term
from gateway.store import Context, Store, Tx, key_sql, lease_sql
from gateway.store.lease_sql import Fence, Holder, LeaseRecord
from gateway.store.location import Location
from tests.support.postgres import database
from tests.support.wait import eventually

NAME = "broker:default"
ONE, OTHER = Holder("gw_1", "one"), Holder("gw_2", "other")
LEASE_MS = 60_000
"""Longer than any test: only :func:`age` ends it."""


def place(engine: str, directory: Path) -> Location:
    """Where the registry of this engine is."""
    return database(directory) if engine == "postgresql" else directory


@asynccontextmanager
async def two_stores(where: Location) -> AsyncIterator[tuple[Store, Store]]:
    """The stores of two gateways."""
    async with Store(where, Context()) as one, Store(where, Context()) as other:
        yield one, other


async def take(store: Store, holder: Holder, name: str = NAME) -> Fence | None:
    """Ask for the lease."""
    return await store.write(lambda tx: lease_sql.acquire(tx, name, holder, LEASE_MS))


async def taken(store: Store, holder: Holder, name: str = NAME) -> Fence:
    """Take the lease, which is free."""
    fence = await take(store, holder, name)
    assert fence is not None
    return fence


async def age(store: Store, ms: int) -> None:
    """Let so much time pass at the database, as all leases and registrations see it."""

    def shift(tx: Tx) -> None:
        tx.run("UPDATE leases SET until = until - ?", ms)
        tx.run("UPDATE gateways SET seen_at = seen_at - ?", ms)

    await store.write(shift)


async def lease_in(store: Store) -> LeaseRecord:
    """The one lease of the registry."""
    (found,) = await store.read(lease_sql.leases)
    return found


async def note(store: Store, value: str) -> None:
    """Write something that a later read finds."""
    await store.write(lambda tx: key_sql.set_meta(tx, "test", value))


async def noted(store: Store) -> str | None:
    """What was written last."""
    return await store.read(lambda view: key_sql.meta(view, "test"))


class Worker:
    """A lease at work: which stores its work was given, and whether it works now."""

    def __init__(self, store: Store, holder: Holder, term: Term) -> None:
        self.lease = Lease(store, NAME, holder, term)
        self.stores: list[Store] = []
        self.works = False
        self._task = asyncio.create_task(self.lease.run(self._work))

    async def _work(self, store: Store) -> None:
        assert not self.works, "the work under one epoch has not ended"
        self.works = True
        self.stores.append(store)
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False

    async def begun(self, times: int = 1) -> None:
        """Wait until the work has begun so often."""
        await eventually(lambda: len(self.stores) >= times and self.works, "the work begins")

    async def ended(self) -> None:
        """Wait until the work has ended."""
        await eventually(lambda: not self.works, "the work ends")

    async def stop(self) -> None:
        """Stop cleanly."""
        self._task.cancel()
        await asyncio.wait((self._task,))
