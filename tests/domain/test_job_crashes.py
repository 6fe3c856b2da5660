"""Jobs when the gateway dies, and many changes at random: counts equal outcomes, nothing is done twice."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import DAY_MS
from gateway.domain import commands, job_creation, job_work, jobs
from gateway.errors import ConflictError
from gateway.models.states import CommandStatus
from gateway.store import View, command_sql, job_sql, job_target_sql, open_database
from gateway.store.job_sql import JobRecord
from tests.domain.job_support import (
    again,
    bound_fleet,
    make,
    request,
    require_counts,
    take_back,
    turns,
    verbs,
)
from tests.domain.support import World

MINUTE_MS = 60_000
FAST = {"pace": {"per_minute": 60_000}}
NEVER = {"abort": None}


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G14")
def test_a_gateway_that_dies_between_two_groups_does_nothing_twice(tmp_path: Path) -> None:
    """The registry is opened again after each transaction. Each device gets one reset, in the end all have one."""
    with World(tmp_path) as world:
        job = make(world, list(bound_fleet(world, 30)), **FAST)
        while again(world, job).waiting:
            world.connection.close()
            world.connection = open_database(world.data_dir)
            world.view = View(world.connection)
            world.run(job_work.take_turns, job.id, 7)
            world.now += 10
            require_counts(world, job)
        resets = world.view.value("SELECT count(*) FROM commands WHERE type = 'factory_reset'")
        assert (resets, again(world, job).queued) == (30, 30)


def test_a_turn_that_breaks_off_leaves_no_trace(tmp_path: Path) -> None:
    """Device, command, target, counts and pace change together."""
    with World(tmp_path) as world:
        job = make(world, list(bound_fleet(world, 3)), **FAST)
        world.now += 1_000
        before = world.dump()

        def break_off(tx: Any) -> None:
            assert job_work.take_turns(tx, job.id) == 3
            raise RuntimeError

        with pytest.raises(RuntimeError):
            world.run(break_off)
        assert world.dump() == before


def test_a_job_in_preparation_is_invisible_and_removed(tmp_path: Path) -> None:
    """No list has it, no worker works on it. It is deleted after ten minutes, in parts."""
    with World(tmp_path) as world:
        body = request([world.register()])
        targets = job_creation.choose(world.view, world.project_id, body)
        job_id = world.run(job_creation.begin, world.project_id, "key_1", body, targets)
        world.run(job_target_sql.insert, job_id, 0, targets)
        assert job_sql.page(world.view, world.project_id, None, None, 10) == []
        assert job_sql.find(world.view, world.project_id, job_id) is None
        assert job_sql.with_work(world.view, world.now) == []
        assert job_work.deletable(world.view, world.now, 365) == []
        world.now += job_work.PREPARED_MS + 1
        assert job_work.deletable(world.view, world.now, 365) == [job_id]
        while world.run(job_work.delete, job_id):
            pass
        assert (
            world.view.value("SELECT count(*) FROM jobs") == world.view.value("SELECT count(*) FROM job_targets") == 0
        )


def test_a_finished_job_is_kept_as_long_as_events(tmp_path: Path) -> None:
    """Then its targets go, and the job. One with an open command stays."""
    with World(tmp_path) as world:
        done = make(world, ["dev_never"])
        (device_id, _) = world.bound()
        cancelled = make(world, [device_id])
        turns(world, cancelled)
        verbs(world, cancelled, "cancel")
        world.run(job_work.end_taking_back, cancelled.id)
        assert job_work.deletable(world.view, world.now + 365 * DAY_MS, 365) == []
        assert job_work.deletable(world.view, world.now + 365 * DAY_MS + 1, 365) == [done.id]


# --- many at random ---------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize("seed", range(6))
def test_counts_equal_outcomes_whatever_happens(tmp_path: Path, seed: int) -> None:
    """Jobs, people and devices at random: after each step counts equal outcomes; each target is done once at most."""
    rng = random.Random(seed)  # noqa: S311 - repeatable
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    with World(tmp_path, seed=seed) as world:
        fleet = bound_fleet(world, 12)
        made: list[JobRecord] = []
        for _ in range(120):
            _step(rng, world, fleet, made)
            for job in made:
                require_counts(world, job)
        doubled = world.view.all(
            """SELECT t.job_id, c.device_pk FROM job_targets t JOIN commands c ON c.id = t.command_id
                GROUP BY t.job_id, c.device_pk HAVING count(*) > 1"""
        )
        assert doubled == []
        final = [again(world, job) for job in made if jobs.is_final(again(world, job))]
        assert final, f"seed {seed}: no job ended"


def _step(rng: random.Random, world: World, fleet: dict[str, str], made: list[JobRecord]) -> None:
    world.now += rng.randrange(2_000)
    device_id = rng.choice(list(fleet))
    if not made or rng.random() < 0.05:
        chosen = rng.sample([*fleet, "dev_never"], rng.randint(1, 10))
        action = rng.choice(["factory_reset", {"type": "reboot", "ttl_seconds": 3}])
        made.append(
            make(world, chosen, action=action, pace={"per_minute": 600}, abort={"failed_percent": 30, "min_done": 3})
        )
    elif rng.random() < 0.35:
        job = rng.choice(made)
        turns(world, job)
        world.run(commands.expire)
    elif rng.random() < 0.3:
        job = rng.choice(made)
        with suppress(ConflictError):
            verbs(world, job, rng.choice(["pause", "resume", "resume", "cancel"]))
        if again(world, job).taking_back and rng.random() < 0.7:
            take_back(world, job)
    elif rng.random() < 0.15:
        world.supersede(device_id)
        world.unbind(device_id)
        world.settle()
        fleet[device_id] = world.bind(device_id).device_token
    else:
        for command in command_sql.open_of_device(world.view, world.device(device_id).pk):
            status = rng.choice(list(CommandStatus)[1:4])
            world.ack(command, status, fleet[device_id])
