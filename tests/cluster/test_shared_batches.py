"""Batches of heartbeats of two gateways run at once, on PostgreSQL, and meet on the devices that they have in common.

A batch is held inside of its transaction, after its last statement and before its commit, while another begins. Each
fault that is planted in the locks is found by one of these tests.
"""

import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.domain import message_batches, messages
from gateway.domain.message_batches import Incoming
from gateway.domain.messages import Message
from gateway.errors import StoreError
from gateway.mqtt.ingest import Ingest
from gateway.store import Context, Store, Tx, View, device_sql, event_sql, heartbeat_partition_sql, heartbeat_sql
from tests.cluster.batches import NAMES, WAITING, Two, beats, two_gateways
from tests.support.postgres import execute, server
from tests.support.wait import eventually


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """Two gateways."""
    async with two_gateways(tmp_path, monkeypatch) as opened:
        yield opened


async def _of_different_devices(two: Two) -> None:
    """Both are written before either commits; each row has its own number."""
    ids = [await two.device(f"S{number}") for number in range(4)]
    await two.online(*ids)
    async with two.batch(two.one, *ids[:2], percent=41) as first, two.batch(two.other, *ids[2:], percent=42) as second:
        assert await two.arrives(first)
        assert await two.arrives(second), "the second waits for the first"
        assert (await second.end(), await first.end()) == ([0, 1], [0, 1])
    for device_id, percent in zip(ids, (41, 41, 42, 42), strict=True):
        assert await two.history(device_id) == [(50, True), (percent, True)]
        assert await two.newest(device_id) == percent


async def _of_one_device(two: Two) -> None:
    """The second waits, and goes on from what the first has written."""
    common, alone = await two.device("S1"), await two.device("S2")
    await two.online(common, alone)
    async with two.batch(two.one, common, percent=41) as first:
        assert await two.arrives(first)
        async with two.batch(two.other, alone, common, percent=42) as second:
            assert not await two.arrives(second), "the second has not waited for the first"
            await first.end()
            await second.end()
    assert await two.history(common) == [(50, True), (41, True), (42, True)]
    assert await two.newest(common) == 42


async def _in_opposite_order(two: Two) -> None:
    """Three devices, the one in the middle held by a third session when both batches begin: none is undone."""
    execute(server(), f"ALTER DATABASE {two.address.database} SET deadlock_timeout = '20ms'")
    ids = [await two.device(f"S{number}") for number in range(3)]
    await two.online(*ids)
    async with (
        Store(two.address, Context(), two.conflicts) as one,
        Store(two.address, Context(), two.conflicts) as more,
    ):
        with psycopg.connect(two.address.url) as middle:
            middle.execute("SELECT 1 FROM devices WHERE id = %s FOR UPDATE", (ids[1],))
            async with two.batch(one, *ids, percent=41) as first, two.batch(more, *reversed(ids), percent=42) as second:
                first.go_on.set()
                second.go_on.set()
                await eventually(lambda: two.looking.execute(WAITING).fetchone()[0] == 2, "both batches wait")
                middle.rollback()
                assert sorted([*await first.end(), *await second.end()]) == [0, 0, 1, 1, 2, 2]
    for device_id in ids:
        percents = [percent for percent, _ in await two.history(device_id)]
        assert (percents[0], sorted(percents)) == (50, [41, 42, 50])
    assert two.conflicts.number == 0


async def _with_events(two: Two) -> None:
    """Of devices that come online, in two projects. A reader that goes on from the newest number misses none."""
    ids = [await two.device("S1"), await two.device("S2", "other ward")]
    seen = await two.one.read(event_sql.newest)
    told: list[str | None] = []

    async def read_on() -> None:
        nonlocal seen
        for event in await two.one.read(lambda view: event_sql.after(view, seen, 100)):  # noqa: B023 - awaited here
            seen = event.seq
            told.append(event.device_id)

    async with two.batch(two.one, ids[0]) as first:
        assert await two.arrives(first)
        async with two.batch(two.other, ids[1]) as second:
            if await two.arrives(second):
                await second.end()
            await read_on()
            await first.end()
            await second.end()
    await read_on()
    assert told == ids
    assert await two.one.read(lambda view: view.value("SELECT sum(online) FROM device_counts")) == 2


async def test_batches_of_different_devices_run_at_once(two: Two) -> None:
    """See :func:`_of_different_devices`."""
    await _of_different_devices(two)


async def test_batches_of_one_device_follow_one_another(two: Two) -> None:
    """See :func:`_of_one_device`."""
    await _of_one_device(two)


async def test_batches_in_opposite_order_do_not_wait_for_each_other(two: Two) -> None:
    """See :func:`_in_opposite_order`."""
    await _in_opposite_order(two)


async def test_events_of_two_batches_have_the_order_of_the_commits(two: Two) -> None:
    """See :func:`_with_events`."""
    await _with_events(two)


# --- planted faults -------------------------------------------------------------------------------------------------


def _number_of_the_last_row(patch: pytest.MonkeyPatch, _: Two) -> None:
    patch.setattr(heartbeat_sql, "next_block", lambda tx, known: heartbeat_partition_sql.next_id(tx, known, 1))


def _no_device_is_locked(patch: pytest.MonkeyPatch, _: Two) -> None:
    patch.setattr(device_sql, "lock", lambda *_: None)


def _locked_in_no_fixed_order(patch: pytest.MonkeyPatch, _: Two) -> None:
    orders = itertools.chain(("pk", "pk DESC"), itertools.repeat("pk"))

    def lock(tx: Tx, ids: Sequence[str]) -> None:
        sql = device_sql._LOCKED.format(tx.dialect.names)  # noqa: SLF001 - the fault
        tx.value(sql.replace("ORDER BY pk", f"ORDER BY {next(orders)}"), json.dumps(list(ids)))

    patch.setattr(device_sql, "lock", lock)


def _numbers_from_a_sequence(patch: pytest.MonkeyPatch, two: Two) -> None:
    patch.setattr(event_sql, "lock_numbers", lambda _: None)
    two.looking.execute("CREATE SEQUENCE numbers START 1000")
    two.looking.execute("ALTER TABLE events ALTER COLUMN seq SET DEFAULT nextval('numbers')")


FAULTS: dict[Callable[[pytest.MonkeyPatch, Two], None], Callable[[Two], Any]] = {
    _number_of_the_last_row: _of_different_devices,
    _no_device_is_locked: _of_one_device,
    _locked_in_no_fixed_order: _in_opposite_order,
    _numbers_from_a_sequence: _with_events,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.lstrip("_"))
async def test_a_planted_fault_is_found(
    fault: Callable[[pytest.MonkeyPatch, Two], None], two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the tests above fails on the fault that it is there for."""
    fault(monkeypatch, two)
    with pytest.raises(AssertionError):
        await FAULTS[fault](two)


# --- what is left of a batch ----------------------------------------------------------------------------------------

SAID: dict[str, object] = {
    "heartbeat": {"battery_percent": 50},
    "low": {"battery_percent": 5, "device_state": "lowBattery"},
    "full": {"flags": 4},
    "new firmware": {"firmware_version": "2.0"},
    "again": {"battery_percent": 50, "sent_at": "2026-11-10T11:59:00Z"},
    "nonsense": {"battery_percent": "much"},
    "of a command": {"last_command": {"command_id": "cmd_X", "status": "executed"}},
}
COMPARED = (
    "SELECT battery_percent, flags, firmware_version, sent_at FROM heartbeats WHERE device_pk = ? ORDER BY id",
    "SELECT battery_percent, flags, connection, low_battery, storage_full, at_broker FROM health WHERE device_pk = ?",
    "SELECT type FROM events WHERE device_pk = ? ORDER BY seq",
    "SELECT type, suppressed FROM event_budgets WHERE device_pk = ? ORDER BY type",
    "SELECT firmware_version FROM devices WHERE pk = ?",
    "SELECT count(*), count(first_id) FROM history_days WHERE device_pk = ?",
)


def _compared(view: View, device_id: str) -> list[list[tuple[Any, ...]]]:
    pk = view.value("SELECT pk FROM devices WHERE id = ?", device_id)
    return [[tuple(row) for row in view.all(sql, pk)] for sql in COMPARED]


def _ingest(store: Store) -> Ingest:
    return Ingest(store, NAMES, lambda _: False)


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_stored_beside_others_is_what_is_stored_alone(two: Two, seed: int) -> None:
    """Devices say the same, in any order; of half of them all goes alone. What each has in the end is alike."""
    chance = random.Random(seed)  # noqa: S311 - a test wants it to be predictable
    pairs = [(await two.device(f"S{number}"), await two.device(f"A{number}")) for number in range(4)]
    for _ in range(4):
        words = [(chance.choice(pairs), json.dumps(SAID[chance.choice(list(SAID))]).encode()) for _ in range(8)]
        beside = [Message(NAMES.heartbeat(one), payload) for (one, _), payload in words]
        alone = [Message(NAMES.heartbeat(other), payload) for (_, other), payload in words]
        await _ingest(two.one)._store_some(list(beside))  # noqa: SLF001 - without a broker
        await two.other.write_batch(lambda batch, alone=alone: message_batches.process_batch(batch, alone, NAMES))  # type: ignore[misc]
    for one, other in pairs:
        assert await two.one.read(lambda view, each=one: _compared(view, each)) == await two.one.read(  # type: ignore[misc]
            lambda view, each=other: _compared(view, each)  # type: ignore[misc]
        )


async def test_what_the_first_transaction_holds_is_stored_once(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one fails at first. Neither a heartbeat is stored twice, nor is one lost."""
    plain, other = await two.device("S1"), await two.device("S2")
    real, tries = message_batches.process_batch, iter((True, False))

    def fails_once(*of: Any) -> Any:
        if next(tries):
            raise StoreError("a disk is full")
        return real(*of)

    monkeypatch.setattr(message_batches, "process_batch", fails_once)
    online = Message(NAMES.status(other), b'{"status": "online"}')
    incoming: list[Incoming] = [*beats(plain, percent=41), messages.parse(NAMES, online), *beats(other, percent=42)]
    count, _ = await _ingest(two.one)._store_some(incoming)  # noqa: SLF001 - without a broker
    assert count == 3
    assert await two.history(plain) == [(41, True)]
    assert await two.history(other) == [(42, True)]


async def test_numbers_skip_what_a_write_alone_has_used(two: Two) -> None:
    """Also a history of an earlier version, which numbered rows one after the other: the next block is above it."""
    device_id = await two.device("S1")
    await two.online(device_id)
    await two.one.write(lambda tx: tx.run("UPDATE heartbeats SET id = 7500000"))
    await two.one.write(lambda tx: tx.run("UPDATE health SET history_id = 7500000"))
    for percent in (41, 42):
        async with two.batch(two.other, device_id, percent=percent) as running:
            await running.end()
    await two.online(device_id)
    async with two.batch(two.other, device_id, percent=43) as running:
        await running.end()
    assert [percent for percent, _ in await two.history(device_id)] == [50, 41, 42, 50, 43]
    assert all(follows for _, follows in await two.history(device_id))
