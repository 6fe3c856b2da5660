"""What the writer remembers of devices between heartbeats is never older than what the registry holds."""

import asyncio
import json
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gateway.core.topics import Topics
from gateway.domain import message_batches, messages
from gateway.errors import StoreError
from gateway.models.events import ListEvents
from gateway.store import Batch, Tx, View, event_list, health_sql, open_database
from gateway.store.device_cache import MOST, CachedDevice, DeviceCache
from tests.store.support import trace
from tests.support.registry import Bound, Registry, registry

BATCH = 2
"""A single message is taken without what is remembered."""


def _beats(device: Bound, *percents: int) -> list[messages.Parsed]:
    topic = Topics().heartbeat(device.id)
    payloads = [json.dumps({"battery_percent": percent}).encode() for percent in percents]
    return [messages.parse(Topics(), messages.Message(topic, payload)) for payload in payloads]


async def _send(registered: Registry, device: Bound, *percents: int) -> list[messages.MessageResult]:
    batch = _beats(device, *percents)
    return await registered.store.write_batch(partial(_store, batch))


def _store(parsed: list[messages.Parsed], batch: Batch) -> list[messages.MessageResult]:
    return message_batches.process_batch(batch, parsed, Topics())[1]


async def _selects(registered: Registry, parsed: list[messages.Parsed]) -> int:
    """Return how often these messages look up devices."""
    seen: list[str] = []

    def watched(batch: Batch) -> None:
        trace(batch.tx.connection, seen.append)
        try:
            _store(parsed, batch)
        finally:
            trace(batch.tx.connection, lambda _: None)

    await registered.store.write_batch(watched)
    return sum("FROM devices d LEFT JOIN health" in statement for statement in seen)


@pytest.mark.sqlite  # on PostgreSQL nothing is kept between batches: another gateway may have written
async def test_a_device_is_looked_up_once(tmp_path: Path) -> None:
    """As long as nothing but heartbeats is written."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        batch = _beats(device, 80, 79)
        assert await _selects(registered, batch) == 1
        assert await _selects(registered, batch) == 0


async def test_a_token_revoked_by_another_process_is_refused(tmp_path: Path) -> None:
    """Though its device is remembered as one that has a token."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        assert await _send(registered, device, 80, 79) == []
        await registered.unbind(device)
        assert {answer.refusal.code for answer in await _send(registered, device, 60, 59)} == {"token_revoked"}
        row = await registered.store.read(lambda view: health_sql.device_state(view, device.id))
        assert row is not None
        assert row.battery_percent == 79


async def test_writes_of_another_process_are_seen(tmp_path: Path) -> None:
    """Such as the command line's, which unbinds a device beside the running gateway."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        await _send(registered, device, 80, 79)
        with closing(open_database(tmp_path / "data")) as other:
            other.execute("UPDATE tokens SET state = 'revoked', revoked_at = 1")
        assert {answer.refusal.code for answer in await _send(registered, device, 60, 59)} == {"token_revoked"}


async def test_a_rolled_back_batch_leaves_no_cache_entry(tmp_path: Path) -> None:
    """Neither a place in the history, nor an event that counts as told."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        await _send(registered, device, 80, 79)
        batch = _beats(device, 10, 9)

        with pytest.raises(RuntimeError):
            await registered.store.write_batch(partial(_fails, batch))
        assert await registered.store.read(lambda view: _low(view, device)) == 0
        await _send(registered, device, 10, 9)
        assert await registered.store.read(lambda view: _low(view, device)) == 1
        chain = await registered.store.read(lambda view: view.all("SELECT id, previous FROM heartbeats ORDER BY id"))
        assert [tuple(row) for row in chain] == [(1, None), (2, 1), (3, 2), (4, 3)]


async def test_a_rolled_back_write_of_a_group_leaves_no_cache_entry(tmp_path: Path) -> None:
    """Writes share a transaction; one that fails is undone alone."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        await _send(registered, device, 80, 79)
        batch = _beats(device, 10, 9)

        outcomes = await asyncio.gather(
            *(registered.store.write(partial(_fails_alone, batch)) for _ in range(BATCH)),
            registered.store.write(lambda tx: _store(batch, Batch(tx))),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError, list]
        assert await registered.store.read(lambda view: _low(view, device)) == 1
        rows = await registered.store.read(lambda view: view.all("SELECT id, previous FROM heartbeats ORDER BY id"))
        assert [tuple(row) for row in rows] == [(1, None), (2, 1), (3, 2), (4, 3)]


@pytest.mark.sqlite  # its disk is made full by a limit of SQLite; tests/store/test_postgres_faults.py has a full disk
async def test_a_failed_commit_leaves_no_cache_entry(tmp_path: Path) -> None:
    """A commit that fails undoes all: the same batch again is taken as if for the first time."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")
        await _send(registered, device, 80, 79)
        pages = await registered.store.write(lambda tx: tx.value("PRAGMA page_count"))
        await registered.store.write(lambda tx: tx.value(f"PRAGMA max_page_count = {pages}"))
        wide = _beats(device, *range(10, 60)) * 40
        with pytest.raises(StoreError):
            await registered.store.write_batch(partial(_store, wide))
        await registered.store.write(lambda tx: tx.value("PRAGMA max_page_count = 1000000"))
        await _send(registered, device, 78, 77)
        rows = await registered.store.read(lambda view: view.all("SELECT id, previous FROM heartbeats ORDER BY id"))
        assert [tuple(row) for row in rows] == [(1, None), (2, 1), (3, 2), (4, 3)]


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """When more devices are remembered than may be, all are forgotten."""
    async with registry(tmp_path) as registered:
        device = await registered.bound("SN-1")

        def fill(tx: Tx) -> int:
            row = health_sql.device_state(tx, device.id)
            assert row is not None
            kept = DeviceCache()
            kept.open(tx.connection)
            kept.senders.update((f"dev_{number}", CachedDevice(row)) for number in range(MOST + 1))
            kept.close(tx.connection)
            kept.open(tx.connection)
            return len(kept.senders)

        assert await registered.store.write(fill) == 0


def _low(view: View, device: Bound) -> int:
    return sum(event.type == "device.low_battery" for event in event_list.page(view, device.pk, ListEvents(limit=100)))


def _fails(parsed: list[messages.Parsed], batch: Batch) -> None:
    _store(parsed, batch)
    raise RuntimeError("after the batch")


def _fails_alone(parsed: list[messages.Parsed], tx: Tx) -> None:
    _fails(parsed, Batch(tx))
