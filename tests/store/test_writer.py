"""The one thread that writes: group commit, order, and results only after the commit."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import UnavailableError
from gateway.models.devices import RegisterDevice
from gateway.store import Batch, Context, Tx, View, device_sql, open_database, open_reader, outbox_sql, transact
from gateway.store.errors import DATABASE_ERRORS
from gateway.store.measurements import Measure
from tests.store.support import Gate, names, project, queued, writing
from tests.support.colliding_ids import CollidingIds
from tests.support.wait import eventually


def _committed(data_dir: Path) -> set[str]:
    """What another connection sees."""
    with closing(open_reader(data_dir)) as connection:
        return names(View(connection))


async def test_queued_writes_share_one_commit(tmp_path: Path) -> None:
    """Sixty-four wait behind one: two commits in all, and each caller gets its own result."""
    async with writing(tmp_path) as bench:
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        rest = await queued(bench.writer, [project(f"p{number}") for number in range(64)])
        gate.open()
        await asyncio.gather(*first)
        ids = await asyncio.gather(*rest)
        assert bench.commits == 2
        assert len(set(ids)) == 64
        assert len(_committed(tmp_path)) == 64


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("raises", "the caller's own fault"),
        ("breaks a constraint", "cannot store TEXT|invalid input syntax"),
        ("does not fit", "too large|out of range"),
    ],
)
async def test_a_failed_write_does_not_affect_its_group(tmp_path: Path, kind: str, says: str) -> None:
    """Its own rows go, its own caller hears of it; those before and after it in the group are committed."""

    def faulty(tx: Tx) -> None:
        project("half")(tx)
        if kind == "raises":
            raise LookupError("the caller's own fault")
        value: Any = "before" if kind == "breaks a constraint" else 2**70
        tx.run("INSERT INTO projects (id, name, created_at) VALUES ('proj_x', ?, ?)", str(value), value)

    async with writing(tmp_path) as bench:
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        before, fault, after = await queued(bench.writer, [project("before"), faulty, project("after")])
        gate.open()
        await asyncio.gather(*first, before, after)
        with pytest.raises((LookupError, OverflowError, *DATABASE_ERRORS), match=says):
            await fault
        assert _committed(tmp_path) == {"before", "after"}
        assert bench.commits == 2


async def test_a_failed_single_write_is_rolled_back(tmp_path: Path) -> None:
    """It gets its own error as it was raised, nothing of it is left or told, and it pays for no savepoint."""
    told: list[frozenset[str]] = []

    def faulty(tx: Tx) -> None:
        _marked_device(tx)
        tx.run("INSERT INTO projects (id, name, created_at) VALUES ('proj_x', 'ward', 1)")

    async with writing(tmp_path, committed=told.append) as bench:
        with pytest.raises(DATABASE_ERRORS, match=r"(?i)constraint"):
            await bench.writer.write(faulty)
        assert (told, _committed(tmp_path)) == ([], set())
        await bench.writer.write(project("next"))
        assert _committed(tmp_path) == {"next"}
        assert not [each for each in bench.statements if each.startswith("SAVEPOINT")]


async def test_a_result_follows_its_commit(tmp_path: Path) -> None:
    """While its group is at work no reader sees a row and no caller has a result; with the result all see it."""
    async with writing(tmp_path) as bench:
        door, gate = Gate(), Gate()
        first = await queued(bench.writer, [door])
        await door.reached()
        made, last = await queued(bench.writer, [project("made"), gate])
        door.open()
        await gate.reached()
        assert _committed(tmp_path) == set()
        assert not made.done()
        gate.open()
        await made
        assert _committed(tmp_path) == {"made"}
        await asyncio.gather(*first, last)


async def test_writes_run_in_order(tmp_path: Path) -> None:
    """Each kind in the order in which it came; groups of urgent ones and ordinary ones take turns."""
    order: list[str] = []

    def noted(name: str) -> Callable[[Tx], None]:
        return lambda _: order.append(name)

    async with writing(tmp_path) as bench:
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        ordinary = await queued(bench.writer, [noted(f"o{n}") for n in range(3)], urgent=False)
        urgent = await queued(bench.writer, [noted(f"u{n}") for n in range(130)])
        gate.open()
        await asyncio.gather(*first, *ordinary, *urgent)
    turns = [each for each in order if each.startswith("o") or each in {"u0", "u64", "u128"}]
    assert turns == ["o0", "u0", "o1", "u64", "o2", "u128"]
    assert [each for each in order if each.startswith("u")] == [f"u{n}" for n in range(130)]


async def test_a_cancelled_caller_loses_only_its_answer(tmp_path: Path) -> None:
    """What was handed over is committed; the others get their results."""
    async with writing(tmp_path) as bench:
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        gone, stays = await queued(bench.writer, [project("gone"), project("stays")])
        gone.cancel()
        gate.open()
        await asyncio.gather(*first, stays)
        assert _committed(tmp_path) == {"gone", "stays"}


async def test_stopping_finishes_queued_writes(tmp_path: Path) -> None:
    """All that was handed over is committed and answered; what comes later is told to come again."""
    async with writing(tmp_path) as bench:
        gate = Gate()
        first = await queued(bench.writer, [gate])
        await gate.reached()
        waiting = await queued(bench.writer, [project(f"p{number}") for number in range(100)])
        waiting += await queued(bench.writer, [project("batch")], urgent=False)
        stopping = asyncio.create_task(asyncio.to_thread(bench.writer.stop))
        gate.open()
        await asyncio.gather(*first, *waiting, stopping)
        assert len(_committed(tmp_path)) == 101
        with pytest.raises(UnavailableError):
            await bench.writer.write(project("late"))


async def test_outbox_notifications_precede_results(tmp_path: Path) -> None:
    """The outbox workers are woken by those commits, and by no others."""
    told: list[frozenset[str]] = []
    async with writing(tmp_path, committed=told.append) as bench:
        await bench.writer.write(project("quiet"))
        assert told == []
        await bench.writer.write(_marked_device)
        assert told == [{outbox_sql.CREDENTIAL}]


def _marked_device(tx: Tx) -> None:
    project_id = project("ward")(tx)
    pk = device_sql.insert(tx, "dev_1", project_id, RegisterDevice(serial_number="SN-1"), "bota_pin")
    outbox_sql.mark_credential(tx, pk)


async def test_a_failing_notification_does_not_withhold_results(tmp_path: Path) -> None:
    """The error reaches the loop's handler, the result its caller."""
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: broken.append(context))

    def bell(_: frozenset[str]) -> None:
        raise LookupError("no bell")

    async with writing(tmp_path, committed=bell) as bench, asyncio.timeout(60):
        await bench.writer.write(_marked_device)
    assert isinstance(broken[0]["exception"], LookupError)


async def test_a_long_write_sees_that_an_urgent_one_waits(tmp_path: Path) -> None:
    """It can end in the middle, so that no other write waits for all of it."""
    heard: list[bool] = []
    async with writing(tmp_path) as bench:
        gate = Gate()

        def long(batch: Batch) -> None:
            heard.append(batch.should_stop())
            gate(batch.tx)
            heard.append(batch.should_stop())

        batch = [asyncio.create_task(bench.writer.write_batch(long))]
        await gate.reached()
        urgent = await queued(bench.writer, [project("urgent")])
        gate.open()
        await asyncio.gather(*batch, *urgent)
    assert heard == [False, True]


@pytest.mark.parametrize("company", [0, 2])
async def test_a_write_with_an_id_collision_is_retried(tmp_path: Path, company: int) -> None:
    """Alone or in a group: undone and run again with a new id; nothing of the first run stays."""
    ids = CollidingIds()

    def write(tx: Tx) -> str:
        tx.measure("runs", "")
        tx.run("INSERT INTO meta (key, value) VALUES ('run', 'once')")
        return project("mine")(tx)

    measured: list[Measure] = []
    async with writing(tmp_path, context=Context(ids=ids), measured=measured.extend) as bench:
        first = await bench.writer.write(project("theirs"))
        ids.taken = [first, first]
        gate = Gate()
        held = await queued(bench.writer, [gate])
        await gate.reached()
        others = [project(f"beside {number}") for number in range(company)]
        wanted, *rest = await queued(bench.writer, [write, *others])
        gate.open()
        await asyncio.gather(*held, wanted, *rest)
        assert await wanted != first
        await bench.writer.write(lambda _: None)
        await eventually(lambda: "runs" in [each.name for each in measured], "what was measured is told")
    assert _committed(tmp_path) == {"theirs", "mine", *(f"beside {number}" for number in range(company))}
    assert [each.name for each in measured].count("runs") == 1


async def test_a_permanent_id_collision_is_an_error(tmp_path: Path) -> None:
    """A write that names the id itself is tried a few times, and then its caller hears of it; so without a writer."""
    async with writing(tmp_path) as bench:
        await bench.writer.write(lambda tx: tx.run("INSERT INTO projects VALUES ('proj_1', 'one', 1)"))
        with pytest.raises(DATABASE_ERRORS, match=r"projects\.id|projects_pkey"):
            await bench.writer.write(lambda tx: tx.run("INSERT INTO projects VALUES ('proj_1', 'two', 1)"))
    assert _committed(tmp_path) == {"one"}


def test_a_single_transaction_retries_an_id_collision_too(tmp_path: Path) -> None:
    """The commands that write without a store, such as ``keys create``."""
    ids = CollidingIds()
    with closing(open_database(tmp_path)) as connection:
        first = transact(connection, Context(ids=ids), project("theirs"))
        ids.taken = [first]
        assert transact(connection, Context(ids=ids), project("mine")) != first
    assert _committed(tmp_path) == {"theirs", "mine"}
