"""Numbers of events follow the order of the commits of two gateways, on PostgreSQL.

So a reader that goes on from the newest number it has seen misses none.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from gateway.store import Context, Store, Tx, event_sql
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.connection import PostgresConnection
from tests.support.postgres import database
from tests.support.wait import eventually

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def _tell(kind: str) -> Callable[[Tx], None]:
    return lambda tx: event_sql.record_administrative(tx, event_sql.REGISTRY, kind, "gateway")


class Reader:
    """Reads on from the newest number that it has seen, as the publisher of events does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = 0
        self.types: list[str] = []

    async def read(self) -> None:
        """Read what is new."""
        for event in await self._store.read(lambda view: event_sql.after(view, self._seen, 100)):
            self._seen = event.seq
            self.types.append(event.type)


@asynccontextmanager
async def _long_transaction(store: Store, kind: str) -> AsyncIterator[None]:
    """Hold a transaction open that has written an event."""
    inside, go_on = threading.Event(), threading.Event()

    def held(tx: Tx) -> None:
        _tell(kind)(tx)
        tx.connection.flush()
        inside.set()
        go_on.wait()

    working = asyncio.create_task(store.write(held))
    try:
        await eventually(inside.is_set, "the long transaction has written its event")
        yield
    finally:
        go_on.set()
        await working


async def _read_beside_a_long_transaction(where: Path) -> list[str]:
    """Let one gateway write an event and stay in its transaction, the other write one; return what a reader saw."""
    address = database(where)
    async with Store(address, Context()) as one, Store(address, Context()) as other:
        reader = Reader(other)
        with closing(PostgresConnection(address)) as looking:
            async with _long_transaction(one, "first"):
                second = asyncio.create_task(other.write(_tell("second")))
                await eventually(
                    lambda: second.done() or looking.execute(WAITING).fetchone()[0] == 1,
                    "the second has committed or waits for the first",
                )
                await reader.read()
        await second
        await reader.read()
        return reader.types


async def test_a_reader_misses_no_event_of_a_long_transaction(tmp_path: Path) -> None:
    """The second gateway draws its number after the first has committed."""
    assert await _read_beside_a_long_transaction(tmp_path) == ["first", "second"]


async def test_the_row_of_the_number_keeps_the_order_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of the registry is one guard. The row that holds the last number is another, locked until the commit."""
    monkeypatch.setattr(postgres_connection, "BEGIN", "BEGIN")
    assert await _read_beside_a_long_transaction(tmp_path) == ["first", "second"]


async def test_a_number_drawn_before_the_lock_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the numbers come from a sequence, and no lock is held. An event is missed."""
    monkeypatch.setattr(postgres_connection, "BEGIN", "BEGIN")
    with closing(PostgresConnection(database(tmp_path))) as changing:
        changing.execute("CREATE SEQUENCE numbers")
        changing.execute("ALTER TABLE events ALTER COLUMN seq SET DEFAULT nextval('numbers')")
    assert await _read_beside_a_long_transaction(tmp_path) == ["second"]
