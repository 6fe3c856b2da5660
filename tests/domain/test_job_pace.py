"""The pace of a job: exact over a minute, the ramp, and no burst after a pause, a stall or a restart."""

from itertools import pairwise
from pathlib import Path

import pytest

from gateway.domain import job_pace
from gateway.domain.job_pace import Pace, Progress
from gateway.store import job_sql, job_target_sql
from tests.domain.job_support import again, make, turns, verbs, work
from tests.domain.support import World

MINUTE_MS = 60_000


def _run(pace: Pace, progress: Progress, until: int, tick_ms: int = 250) -> tuple[int, Progress]:
    """Look at the job at each tick up to then, and take every turn; how many there were."""
    taken, now = 0, progress.paced_at
    while now < until:
        progress = job_pace.advance(pace, progress, now)
        taken += progress.turns
        progress = progress._replace(credit=progress.credit - progress.turns * job_pace.TURN)
        now += tick_ms
    return taken, progress


@pytest.mark.parametrize("per_minute", [1, 7, 10, 60, 600, 601, 3_000, 11_000])
@pytest.mark.parametrize("tick_ms", [20, 250])
def test_each_minute_has_as_many_turns_as_were_asked_for(per_minute: int, tick_ms: int) -> None:
    """Within two percent, or one turn for slow ones, in each of five minutes."""
    pace, progress = Pace(per_minute), job_pace.begin(0)
    for minute in range(1, 6):
        taken, progress = _run(pace, progress._replace(paced_at=progress.paced_at), minute * MINUTE_MS, tick_ms)
        assert abs(taken - per_minute) <= max(1, 0.02 * per_minute)


def test_a_ramp_doubles_until_it_is_at_the_pace() -> None:
    """10, 20, 40, 80 and then 100 a minute."""
    pace, progress = Pace(100, 10, MINUTE_MS), job_pace.begin(0)
    counts = []
    for minute in range(1, 7):
        taken, progress = _run(pace, progress, minute * MINUTE_MS)
        counts.append(taken)
    assert counts == [10, 20, 40, 80, 100, 100]
    assert [pace.rate(minute * MINUTE_MS) for minute in (0, 1, 3, 4, 400)] == [10, 20, 80, 100, 100]


def test_a_step_of_a_ramp_within_one_look_counts_by_parts() -> None:
    """Half a second at 60 and half a second at 120 a minute."""
    assert Pace(1_000, 60, 500).earned(0, 1_000) == 500 * 60 + 500 * 120


@pytest.mark.parametrize("per_minute", [1, 60, 3_000])
def test_what_a_stall_has_missed_is_not_made_up_for(per_minute: int) -> None:
    """After an hour there is one second's worth, and the turn that was next."""
    pace = Pace(per_minute)
    progress = job_pace.advance(pace, Progress(0, 0, 0), 60 * MINUTE_MS)
    assert progress.turns <= min(job_pace.BATCH, per_minute / 60 + 1)
    assert progress.active_ms < 2 * MINUTE_MS


def test_a_clock_that_is_set_back_earns_nothing() -> None:
    """And the pace goes on from the new time."""
    progress = job_pace.advance(Pace(600), Progress(10 * MINUTE_MS, 5, 7), MINUTE_MS)
    assert progress == Progress(MINUTE_MS, 5, 7)
    assert job_pace.advance(Pace(600), progress, MINUTE_MS + 1_000).turns == 10


def test_the_pace_holds_in_the_registry(tmp_path: Path) -> None:
    """600 a minute with a look every 250 ms: 600 turns within two percent, evenly."""
    with World(tmp_path) as world:
        device_id = world.register()
        job = make(world, [device_id], pace={"per_minute": 600})
        _lengthen(world, job.id, device_id, 1_500)
        seconds = [work(world, job, minutes=1 / 60) for _ in range(60)]
        assert abs(sum(seconds) - 600) <= 12
        assert set(seconds[1:]) == {10}


@pytest.mark.guarantee("G14")
def test_a_pause_and_a_restart_give_no_burst(tmp_path: Path) -> None:
    """The seconds after a pause of an hour, and after an outage of a minute, have the turns of any other second."""
    with World(tmp_path) as world:
        device_id = world.register()
        job = make(world, [device_id], pace={"per_minute": 600})
        _lengthen(world, job.id, device_id, 1_500)
        work(world, job, minutes=0.2)
        verbs(world, job, "pause")
        world.now += 60 * MINUTE_MS
        assert turns(world, job) == 0
        verbs(world, job, "resume")
        assert abs(work(world, job) - 600) <= 12
        active = again(world, job).active_ms
        world.now += MINUTE_MS  # the gateway is down
        assert turns(world, job) <= 12
        world.now += 250
        assert again(world, job).active_ms - active <= 2_000
        assert abs(work(world, job, minutes=0.5) - 300) <= 6


def _lengthen(world: World, job_id: str, device_id: str, number: int) -> None:
    """Give the job so many targets more: the same device, at a generation that it never has, so all are skipped."""
    target = job_target_sql.NewTarget(world.device(device_id).pk, None, -1)
    world.run(job_target_sql.insert, job_id, 1, [target] * number)
    world.run(job_sql.change, job_id, total=number + 1)


def test_turns_come_one_by_one_when_they_are_rare(tmp_path: Path) -> None:
    """Ten a minute: one every six seconds, the first at once."""
    with World(tmp_path) as world:
        device_id = world.register()
        job = make(world, [device_id], pace={"per_minute": 10})
        _lengthen(world, job.id, device_id, 30)
        at = []
        for _ in range(4 * 60):
            at += [world.now] * turns(world, job)
            world.now += 250
        assert len(at) == 10
        assert all(later - earlier == 6_000 for earlier, later in pairwise(at))
