"""Batches of two gateways before and after the worker begins a day, which is another partition of the heartbeats."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from gateway.core.clock import DAY_MS, to_rfc3339
from gateway.domain import message_batches
from gateway.domain.messages import Message
from gateway.domain.plain_heartbeats import store_plain
from gateway.errors import StoreError
from gateway.store import Batch, Context, Store, heartbeat_partition_sql
from tests.cluster.batches import NAMES, WAITING, Two, beats, two_gateways
from tests.support.wait import eventually


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """Two gateways."""
    async with two_gateways(tmp_path, monkeypatch) as opened:
        yield opened


async def test_batches_over_midnight_lose_and_double_nothing(two: Two) -> None:
    """Numbers rise along each chain, also where the worker begins a day, and where what began a day was undone."""
    now = [20_000 * DAY_MS - 60_000]
    context = Context(clock=lambda: now[0])
    async with (
        Store(two.address, context, two.conflicts) as one,
        Store(two.address, context, two.conflicts) as other,
        Store(two.address, context, two.conflicts) as worker,
    ):
        both = Two(two.address, one, other, two.conflicts, two.looking)
        ids = [await both.device(f"S{number}") for number in range(3)]
        await both.online(*ids)
        now[0] += DAY_MS
        async with both.batch(one, ids[0], ids[2], percent=41) as running:
            assert await both.arrives(running)
            begun = asyncio.create_task(worker.write(heartbeat_partition_sql.maintain))
            await eventually(lambda: two.looking.execute(WAITING).fetchone()[0] == 1, "the worker waits")
            async with both.batch(other, ids[1], percent=42) as behind:  # waits for the worker, which waits
                await eventually(lambda: two.looking.execute(WAITING).fetchone()[0] == 2, "both wait")
                await running.end()
                await behind.end()
            assert await begun == 0
        for store, percent in ((other, 43), (one, 44)):
            await _twice(store, ids, percent, now[0])
        await _both_at_once(both, ids, 45)
        now[0] += DAY_MS
        with pytest.raises(StoreError, match="a disk is full"):
            await one.write_batch(_undone(ids))
        await _both_at_once(both, ids, 46)
        await _twice(other, ids, 44, now[0] - DAY_MS)  # of yesterday, again
        await both.online(*ids)
        await _both_at_once(both, ids, 47)
        for device_id, first in zip(ids, (41, 42, 41), strict=True):
            told = [50, first, 43, 44, 45, 46, 50, 47]
            assert await both.history(device_id) == [(percent, True) for percent in told]
            assert await both.newest(device_id) == 47
        in_partitions = "SELECT count(*) FROM heartbeats GROUP BY id / 100000000000 ORDER BY min(id)"
        assert [count for (count,) in two.looking.execute(in_partitions)] == [5, 13, 6], "46 goes on in yesterday's"


async def _both_at_once(both: Two, ids: Sequence[str], percent: int) -> None:
    """Two batches, of which the second commits first."""
    async with both.batch(both.one, *ids[:2], percent=percent) as first:
        assert await both.arrives(first)
        async with both.batch(both.other, *ids[2:], percent=percent) as second:
            await second.end()
        await first.end()


async def _twice(store: Store, ids: Sequence[str], percent: int, now: int) -> None:
    """Each heartbeat twice, in two batches, with the time when it was sent."""
    body = json.dumps({"battery_percent": percent, "sent_at": to_rfc3339(now + percent)}).encode()
    said = [Message(NAMES.heartbeat(each), body) for each in ids]
    for _ in range(2):
        await store.write_batch(lambda batch: store_plain(batch, said, NAMES), shared=True)


def _undone(ids: Sequence[str]) -> Callable[[Batch], None]:
    def fails(batch: Batch) -> None:
        message_batches.process_batch(batch, beats(*ids, percent=9), NAMES)
        raise StoreError("a disk is full")

    return fails
