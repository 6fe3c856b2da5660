"""The worker of erasures: it goes on where an earlier run or a full disk left it, and holds up no other write."""

import asyncio
import itertools
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import erasures
from gateway.errors import StoreError
from gateway.store import Store, View, binding_history_sql, binding_sql
from gateway.workers.erasures import Erasures
from tests.domain.support import World
from tests.support.long_history import lengthen
from tests.support.small_disk import full, may_mount, small_disk
from tests.support.wait import eventually

pytestmark = pytest.mark.sqlite  # the long history is written straight into the file

HEARTBEATS = 20_000


def _left(world: World) -> int:
    count: int = world.view.value("SELECT count(*) FROM heartbeats")
    return count


def _former(world: World, heartbeats: int = HEARTBEATS) -> str:
    """A device that was the person's for so many heartbeats."""
    device_id, _ = world.bound()
    world.unbind(device_id)
    lengthen(world.data_dir, device_id, heartbeats)
    return device_id


async def test_a_start_finishes_what_was_accepted(tmp_path: Path) -> None:
    """No caller waits for it; two are done one after the other."""
    with World(tmp_path) as world:
        _former(world)
        world.bind(world.register("SN-2"), "eu_2")
        world.unbind(world.register("SN-2"))
        for person in ("eu_1", "eu_2"):
            world.run(erasures.accept, world.project_id, person, "key_1")
        async with Store(tmp_path, world.context) as store:
            running = asyncio.create_task(Erasures(store).run())
            await eventually(lambda: world.events().count("end_user.erased") == 2, "both are finished")
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert _left(world) == 0


async def test_two_processes_may_finish_the_same_erasure(tmp_path: Path) -> None:
    """The command line and the gateway, on one registry: both tell the counts of the whole."""
    with World(tmp_path) as world:
        _former(world)
        accepted = world.run(erasures.accept, world.project_id, "eu_1", "cli")
        async with Store(tmp_path, world.context) as one, Store(tmp_path, world.context) as other:
            both = await asyncio.gather(*(Erasures(store).wait(accepted, 600) for store in (one, other)))
        assert [erased.counts["heartbeats"] for erased in both] == [HEARTBEATS] * 2
        assert world.events().count("end_user.erased") == 1


async def test_other_writes_come_in_between(tmp_path: Path) -> None:
    """Each ordinary write waits for one part of the erasure at most."""
    with World(tmp_path) as world:
        _former(world)
        accepted = world.run(erasures.accept, world.project_id, "eu_1", "key_1")
        async with Store(tmp_path, world.context) as store:
            erasing = asyncio.create_task(Erasures(store).wait(accepted, 600))
            seen = []
            while not erasing.done():
                seen.append(await store.write(partial(View.value, sql=_COUNT), urgent=False))
            assert (await erasing).counts["heartbeats"] == HEARTBEATS
        steps = [before - after for before, after in itertools.pairwise(seen)]
        assert len([step for step in steps if step]) >= HEARTBEATS // erasures.HEARTBEATS_AT_ONCE - 1
        assert max(steps) <= erasures.HEARTBEATS_AT_ONCE


_COUNT = "SELECT count(*) FROM heartbeats"


@pytest.mark.skipif(not may_mount(), reason="mounting a small file system is not allowed")
async def test_a_full_disk_stops_an_erasure_until_there_is_room(tmp_path: Path) -> None:
    """It fails with the reason, stays accepted or was never, and is finished with room again."""
    with small_disk(tmp_path / "disk", 32_768) as disk:
        data_dir = disk / "data"
        data_dir.mkdir()
        with World(data_dir) as world:
            _former(world)
            async with Store(data_dir, world.context) as store:
                worker = Erasures(store)
                accept = partial(erasures.accept, project_id=world.project_id, end_user_id="eu_1", actor="key_1")
                with full(disk), pytest.raises(StoreError, match="full"):
                    await worker.wait(await store.write(accept), 600)
                assert _left(world) > 0
                accepted = await store.write(accept)
                erased = await worker.wait(accepted, 600)
            assert (erased.finished, _left(world)) == (True, 0)
            assert '"eu_1"' not in "\n".join(world.dump())


def test_a_part_costs_the_same_however_long_the_history(tmp_path: Path) -> None:
    """By the steps of SQLite's machine: no part walks the whole chain."""
    steps = []
    for heartbeats in (2_000, HEARTBEATS):
        (tmp_path / str(heartbeats)).mkdir()
        with World(tmp_path / str(heartbeats)) as world:
            _former(world, heartbeats)
            (binding,) = binding_sql.of_person(world.view, world.project_id, "eu_1")
            looks: list[int] = []
            world.connection.set_progress_handler(lambda: looks.append(1), 1_000)  # noqa: B023 - used up here
            assert world.run(binding_history_sql.delete, binding, 100) == 100
            world.connection.set_progress_handler(None, 0)
        steps.append(len(looks))
    assert steps[1] <= 2 * steps[0], steps
