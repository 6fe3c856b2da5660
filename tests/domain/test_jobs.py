"""Jobs: their states, their turns, and what becomes of their targets."""

from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import HOUR_MS, to_rfc3339
from gateway.domain import job_creation, job_work
from gateway.errors import ConflictError, InvalidRequestError
from gateway.models.jobs import JobStatus
from gateway.models.resets import ResetDevice
from gateway.store import command_sql, job_sql, job_target_sql
from tests.domain.job_support import (
    again,
    bound_fleet,
    end,
    make,
    outcomes,
    require_counts,
    take_back,
    turns,
    verbs,
    work,
)
from tests.domain.support import World

MINUTE_MS = 60_000
FAST = {"pace": {"per_minute": 60_000}}
NEVER = {"abort": None}


# --- states -----------------------------------------------------------------------------------------------------------

ALLOWED = {
    ("pause", "running"): "paused",
    ("resume", "paused"): "running",
    ("cancel", "scheduled"): "cancelled",
    ("cancel", "running"): "cancelled",
    ("cancel", "paused"): "cancelled",
    ("cancel", "aborted"): "aborted",
}
CODES = {"pause": "job_not_running", "resume": "job_not_paused", "cancel": "job_final"}


@pytest.mark.parametrize("status", list(JobStatus))
@pytest.mark.parametrize("verb", list(CODES))
def test_each_verb_in_each_status(tmp_path: Path, verb: str, status: JobStatus) -> None:
    """It leads to the one status that the table has, or to a conflict that names the status and changes nothing."""
    with World(tmp_path) as world:
        job = make(world, list(bound_fleet(world, 2)), **FAST)
        world.run(job_sql.change, job.id, status=status)
        if (verb, str(status)) in ALLOWED:
            assert verbs(world, job, verb).status == ALLOWED[verb, str(status)]
            return
        before = world.dump()
        with pytest.raises(ConflictError) as refused:
            verbs(world, job, verb)
        assert (refused.value.code, refused.value.details) == (CODES[verb], {"status": status})
        assert world.dump() == before


def test_each_change_of_status_writes_its_event(tmp_path: Path) -> None:
    """With the job, its counts and who did it."""
    with World(tmp_path) as world:
        before = len(world.events())
        device_id = world.register()
        job = make(world, [device_id], **FAST)
        assert (job.status, job.started_at, job.created_by) == ("running", world.now, "key_1")
        verbs(world, job, "pause")
        assert again(world, job).paused_at == world.now
        verbs(world, job, "resume")
        assert again(world, job).paused_at is None
        verbs(world, job, "cancel")
        facts = world.facts()
        assert (facts["job_id"], facts["name"], facts["actor"]) == (job.id, "recall", "key_1")
        assert facts["counts"]["total"] == 1
        told = [kind for kind in world.events(before) if kind.startswith("job.")]
        assert told == ["job.created", "job.started", "job.paused", "job.resumed", "job.cancelled"]


def test_a_scheduled_job_starts_when_its_time_has_come(tmp_path: Path) -> None:
    """Not before that, and its frozen targets hold."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        job = make(world, [device_id], start_at=to_rfc3339(world.now + MINUTE_MS))
        assert (job.status, job.started_at) == ("scheduled", None)
        assert job_sql.with_work(world.view, world.now + MINUTE_MS - 1) == []
        assert turns(world, job) == 0
        world.now += MINUTE_MS
        assert [each.id for each in job_sql.with_work(world.view, world.now)] == [job.id]
        world.run(job_work.start, job.id)
        assert again(world, job).status == "running"
        assert turns(world, job) == 1


def test_a_start_does_not_bring_back_a_cancelled_job(tmp_path: Path) -> None:
    """The worker has read it as scheduled before it was cancelled."""
    with World(tmp_path) as world:
        job = make(world, [world.register()], start_at=to_rfc3339(world.now + MINUTE_MS))
        verbs(world, job, "cancel")
        world.run(job_work.start, job.id)
        assert again(world, job).status == "cancelled"


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_a_job_is_completed_by_its_last_report(tmp_path: Path) -> None:
    """Until then it runs, however long the open commands take."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 2)
        job = make(world, list(fleet), **FAST)
        work(world, job, minutes=0.1)
        (one, other) = fleet
        end(world, one, fleet[one], "delivered")
        assert again(world, job).counts["delivered"] == 1
        end(world, one, fleet[one], "executed")
        assert again(world, job).status == "running"
        end(world, other, fleet[other], "failed")
        assert outcomes(world, job) == [("executed", None), ("failed", "flash_worn")]
        done = again(world, job)
        assert (done.status, done.finished_at) == ("completed", world.now)
        require_counts(world, job)
        assert world.events()[-1] != "job.aborted"


def test_a_superseded_reset_is_cancelled_in_the_job(tmp_path: Path) -> None:
    """Also a command that was cancelled by itself."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 2)
        job = make(world, list(fleet), **FAST)
        work(world, job, minutes=0.1)
        one, other = fleet
        world.supersede(one)
        world.cancel(other, world.command(other).id)
        assert outcomes(world, job) == [("cancelled", None)] * 2
        assert again(world, job).status == "completed"


# --- abort ------------------------------------------------------------------------------------------------------------

STRICT = {"pace": {"per_minute": 60_000}, "abort": {"failed_percent": 25, "min_done": 4}}


@pytest.mark.guarantee("G16")
def test_the_report_that_reaches_the_threshold_aborts(tmp_path: Path) -> None:
    """Not the one before; nothing is queued after it; what is queued stays, until the job is cancelled."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 8)
        job = make(world, list(fleet), **STRICT)
        while again(world, job).waiting > 2:
            world.now += 1
            world.run(job_work.take_turns, job.id, 1)
        ids = list(fleet)
        for device_id, status in zip(ids, ("executed", "executed", "failed"), strict=False):
            end(world, device_id, fleet[device_id], status)
        assert again(world, job).status == "running"
        end(world, ids[3], fleet[ids[3]], "executed")
        aborted = again(world, job)
        assert (aborted.status, aborted.finished_at) == ("aborted", world.now)
        assert aborted.aborted_because == "1 of 4 devices failed (25 %). The limit is 25 % once 4 are done."
        assert (world.events()[-1], world.facts()["because"]) == ("job.aborted", aborted.aborted_because)
        assert work(world, job, minutes=0.1) == 0
        assert again(world, job).counts["queued"] == 2
        verbs(world, job, "cancel")
        take_back(world, job)
        ended = again(world, job)
        assert (ended.status, ended.counts["queued"], ended.counts["cancelled"]) == ("aborted", 0, 4)
        require_counts(world, job)
        with pytest.raises(ConflictError, match="This job is aborted"):
            verbs(world, job, "cancel")


def test_cancelled_and_skipped_targets_abort_nothing(tmp_path: Path) -> None:
    """They say nothing about what the action does to a device."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 6)
        job = make(world, [*fleet, "dev_never"], **STRICT)
        work(world, job, minutes=0.1)
        for device_id in fleet:
            world.cancel(device_id, world.command(device_id).id)
        assert again(world, job).status == "completed"


def test_without_a_threshold_all_may_fail(tmp_path: Path) -> None:
    """``abort: null``."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 25)
        job = make(world, list(fleet), **FAST, **NEVER)
        work(world, job, minutes=0.1)
        for device_id, token in fleet.items():
            end(world, device_id, token, "failed")
        assert again(world, job).status == "completed"


def test_the_default_threshold_is_ten_percent_of_twenty(tmp_path: Path) -> None:
    """The twentieth end decides for the first time."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 21)
        job = make(world, list(fleet), **FAST)
        work(world, job, minutes=0.1)
        for number, (device_id, token) in enumerate(fleet.items(), 1):
            if number <= 20:
                assert again(world, job).status == "running"
                end(world, device_id, token, "failed" if number <= 2 else "executed")
        assert again(world, job).status == "aborted"


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_takes_back_what_is_not_delivered(tmp_path: Path) -> None:
    """From its transaction on nothing is queued. The rest happens in parts, and may be repeated."""
    with World(tmp_path) as world:
        fleet = bound_fleet(world, 4)
        job = make(world, list(fleet), pace={"per_minute": 60})
        for _ in range(3):
            turns(world, job)
            world.now += 1_000
        one, two, three, _ = fleet
        end(world, one, fleet[one], "delivered")
        verbs(world, job, "cancel")
        assert turns(world, job) == 0
        assert world.run(job_work.take_turns, job.id) == 0
        for _ in range(2):
            take_back(world, job)
        assert [outcome for outcome, _ in outcomes(world, job)] == ["delivered", *["cancelled"] * 3]
        assert [world.token_states(each)[-1] for each in (two, three)] == ["revoked"] * 2
        require_counts(world, job)
        end(world, one, fleet[one], "executed")
        assert (again(world, job).status, again(world, job).executed) == ("cancelled", 1)
        require_counts(world, job)


def test_a_sent_command_waits_for_the_backlog(tmp_path: Path) -> None:
    """The device's report on it may wait at the broker."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        job = make(world, [device_id])
        turns(world, job)
        world.run(command_sql.set_sent, [world.command(device_id).id])
        verbs(world, job, "cancel")
        found = job_work.queued(world.view, job.id, -1, 10)
        assert world.run(job_work.take_back, job.id, found, taken_in=False) == 1
        assert again(world, job).queued == 1
        assert world.run(job_work.take_back, job.id, found, taken_in=True) == 0
        assert again(world, job).cancelled == 1


def test_a_large_job_is_cancelled_in_parts(tmp_path: Path) -> None:
    """No transaction changes more than 500 targets."""
    with World(tmp_path) as world:
        known = world.register()
        job = make(world, [known])
        pk = world.device(known).pk
        many = [job_target_sql.NewTarget(pk, None, 1)] * 1_200
        world.run(job_target_sql.insert, job.id, 1, many)
        world.run(job_sql.change, job.id, total=1_201)
        verbs(world, job, "cancel")
        parts = []
        while done := world.run(job_work.cancel_waiting, job.id):
            parts.append(done)
            require_counts(world, job)
        assert parts == [500, 500, 201]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"start_at": "2026-11-10T11:59:59Z"}, "start_at"),
        ({"pace": {"per_minute": 5, "ramp": {"from_per_minute": 6, "double_after": 1}}}, "pace.ramp.from_per_minute"),
        ({"pace": {"ramp": {"from_per_minute": 3_001, "double_after": 1}}}, "pace.ramp.from_per_minute"),
        ({"targets": {"filter": {"model": "bota_note"}}}, "targets.filter"),
    ],
)
def test_what_fields_say_together_is_checked(tmp_path: Path, more: dict[str, Any], field: str) -> None:
    """The error names the field, and nothing is written."""
    with World(tmp_path) as world:
        device_id = world.register()
        before = world.dump()
        with pytest.raises(InvalidRequestError) as refused:
            make(world, [device_id], **more)
        assert refused.value.details["field"] == field
        assert world.dump() == before


def test_a_clock_that_is_set_back_does_not_stop_a_job(tmp_path: Path) -> None:
    """Its pace goes on from the new time: nothing is made up for, and nothing waits until the old time is there."""
    with World(tmp_path) as world:
        job = make(world, [world.register(f"SN-{number}") for number in range(40)], pace={"per_minute": 60})
        assert work(world, job, minutes=1 / 6) == 10
        world.now -= HOUR_MS
        assert work(world, job, minutes=1 / 6) in (9, 10)


def test_a_bulk_reset_is_not_held_for_longer_when_the_clock_is_set_back(tmp_path: Path) -> None:
    """The time until which its request holds it is a minute ahead at most."""
    with World(tmp_path) as world:
        ids = [world.register()]
        job = world.run(job_creation.create_for_bulk_reset, world.project_id, "key_1", ids, ResetDevice())
        assert turns(world, job) == 0
        world.now -= HOUR_MS
        assert turns(world, job) == 1
