"""Jobs: their states, their turns, and what becomes of their targets."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import DAY_MS, HOUR_MS, to_rfc3339
from gateway.domain import commands, epoch, job_creation, job_work, jobs
from gateway.errors import ConflictError, InvalidRequestError
from gateway.models.jobs import JobStatus
from gateway.models.resets import ResetDevice
from gateway.models.states import CommandStatus
from gateway.store import View, command_sql, job_sql, job_target_sql, open_database
from gateway.store.job_sql import JobRecord
from tests.domain.job_support import again, make, outcomes, request, require_counts, take_back, turns, verbs, work
from tests.domain.support import World

MINUTE_MS = 60_000
FAST = {"pace": {"per_minute": 60_000}}
NEVER = {"abort": None}


def _fleet(world: World, number: int) -> dict[str, str]:
    """Tokens of so many bound devices, by their ids."""
    return dict(world.bound(f"SN-{each}") for each in range(number))


def _end(world: World, device_id: str, token: str, status: str) -> None:
    """The device reports on its open reset."""
    error = {"error": {"code": "flash_worn", "message": ""}} if status == "failed" else {}
    world.ack(world.command(device_id), status, token, **error)


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
        job = make(world, list(_fleet(world, 2)), **FAST)
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


# --- turns ------------------------------------------------------------------------------------------------------------


def test_a_turn_queues_the_command_and_stores_its_id(tmp_path: Path) -> None:
    """The reset is as if its creator had asked for it: actor, reason, recordings."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        action = {"type": "factory_reset", "params": {"recordings": "wipe"}}
        job = make(world, [device_id], action=action, reason="Batch 12")
        assert turns(world, job) == 1
        command = world.command(device_id)
        target = job_target_sql.by_command(world.view, command.id)
        assert target is not None
        assert (target.job_id, target.outcome) == (job.id, "queued")
        reset = world.view.one("SELECT * FROM resets WHERE command_id = ?", command.id)
        assert reset is not None
        assert (reset["requested_by"], reset["reason"], reset["recordings"]) == ("key_1", "Batch 12", "wipe")
        assert world.device(device_id).bound_at is None
        require_counts(world, job)


def test_a_command_gets_its_params_and_expires(tmp_path: Path) -> None:
    """From its turn on; an expired one has failed."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        action = {"type": "start_recording", "params": {"seconds": 5}, "ttl_seconds": 60}
        job = make(world, [device_id], action=action)
        world.now += DAY_MS
        turns(world, job)
        command = world.command(device_id, "start_recording")
        assert (command.params, command.expires_at) == ('{"seconds": 5}', world.now + MINUTE_MS)
        world.now += MINUTE_MS
        world.run(commands.expire)
        assert outcomes(world, job) == [("failed", "expired")]
        assert again(world, job).status == "completed"
        require_counts(world, job)


@pytest.mark.guarantee("G15")
def test_a_device_that_was_bound_anew_is_skipped(tmp_path: Path) -> None:
    """It keeps its new binding, and gets no command."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        job = make(world, [device_id])
        world.unbind(device_id)
        world.bind(device_id, "eu_2")
        turns(world, job)
        assert outcomes(world, job) == [("skipped", "bound_anew")]
        assert world.device(device_id).end_user_id == "eu_2"
        assert command_sql.open_of_device(world.view, world.device(device_id).pk) == []
        assert again(world, job).status == "completed"


def _reset(world: World, device_id: str) -> None:
    world.reset(device_id)


def _delete(world: World, device_id: str) -> None:
    world.delete(device_id)


def _reboot(world: World, device_id: str) -> None:
    world.create(device_id, "reboot")


def _unbind(world: World, device_id: str) -> None:
    world.unbind(device_id)


@pytest.mark.parametrize(
    ("action", "meanwhile", "reason"),
    [
        ("factory_reset", _reset, "already_pending"),
        ("factory_reset", _delete, "deleted"),
        ("reboot", _delete, "deleted"),
        ("reboot", _reboot, "command_pending"),
        ("reboot", _unbind, "bound_anew"),
        ("factory_reset", _unbind, "bound_anew"),
    ],
)
def test_what_happened_meanwhile_skips_a_target(tmp_path: Path, action: str, meanwhile: Any, reason: str) -> None:
    """Each with its reason; the job is complete."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        job = make(world, [device_id], action=action)
        meanwhile(world, device_id)
        turns(world, job)
        assert outcomes(world, job) == [("skipped", reason)]
        assert again(world, job).status == "completed"
        require_counts(world, job)


def test_a_command_for_an_unbound_device_is_skipped(tmp_path: Path) -> None:
    """Nothing would fetch it."""
    with World(tmp_path) as world:
        job = make(world, [world.register()], action="reboot")
        turns(world, job)
        assert outcomes(world, job) == [("skipped", "not_bound")]


def test_unknown_devices_are_named_in_the_outcome(tmp_path: Path) -> None:
    """A deleted one, too. The known one has its turn. An id that is there twice counts once."""
    with World(tmp_path) as world:
        (known, _), (gone, _) = world.bound(), world.bound("SN-2")
        world.delete(gone)
        job = make(world, ["dev_never", known, gone, known, "no id"])
        skipped = [("skipped", "not_found"), ("waiting", None), ("skipped", "deleted"), ("skipped", "not_found")]
        assert outcomes(world, job) == skipped
        rows = job_target_sql.page(world.view, job.id, (), -1, 10)
        assert [row.device_id or row.unknown_id for row in rows] == ["dev_never", known, gone, "no id"]
        assert turns(world, job) == 1
        require_counts(world, job)


def test_a_job_for_unknown_devices_alone_is_completed(tmp_path: Path) -> None:
    """At once."""
    with World(tmp_path) as world:
        assert make(world, ["dev_never"]).status == "completed"


@pytest.mark.guarantee("G15")
def test_after_a_restore_no_target_is_done(tmp_path: Path) -> None:
    """The lost registry may have done it, and the device may be another person's by now."""
    with World(tmp_path) as world:
        job = make(world, list(_fleet(world, 3)))
        world.run(epoch.begin, epoch.RESTORED)
        work(world, job)
        assert outcomes(world, job) == [("skipped", "bound_anew")] * 3


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_a_job_is_completed_by_its_last_report(tmp_path: Path) -> None:
    """Until then it runs, however long the open commands take."""
    with World(tmp_path) as world:
        fleet = _fleet(world, 2)
        job = make(world, list(fleet), **FAST)
        work(world, job, minutes=0.1)
        (one, other) = fleet
        _end(world, one, fleet[one], "delivered")
        assert again(world, job).counts["delivered"] == 1
        _end(world, one, fleet[one], "executed")
        assert again(world, job).status == "running"
        _end(world, other, fleet[other], "failed")
        assert outcomes(world, job) == [("executed", None), ("failed", "flash_worn")]
        done = again(world, job)
        assert (done.status, done.finished_at) == ("completed", world.now)
        require_counts(world, job)
        assert world.events()[-1] != "job.aborted"


def test_a_superseded_reset_is_cancelled_in_the_job(tmp_path: Path) -> None:
    """Also a command that was cancelled by itself."""
    with World(tmp_path) as world:
        fleet = _fleet(world, 2)
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
        fleet = _fleet(world, 8)
        job = make(world, list(fleet), **STRICT)
        while again(world, job).waiting > 2:
            world.now += 1
            world.run(job_work.take_turns, job.id, 1)
        ids = list(fleet)
        for device_id, status in zip(ids, ("executed", "executed", "failed"), strict=False):
            _end(world, device_id, fleet[device_id], status)
        assert again(world, job).status == "running"
        _end(world, ids[3], fleet[ids[3]], "executed")
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
        fleet = _fleet(world, 6)
        job = make(world, [*fleet, "dev_never"], **STRICT)
        work(world, job, minutes=0.1)
        for device_id in fleet:
            world.cancel(device_id, world.command(device_id).id)
        assert again(world, job).status == "completed"


def test_without_a_threshold_all_may_fail(tmp_path: Path) -> None:
    """``abort: null``."""
    with World(tmp_path) as world:
        fleet = _fleet(world, 25)
        job = make(world, list(fleet), **FAST, **NEVER)
        work(world, job, minutes=0.1)
        for device_id, token in fleet.items():
            _end(world, device_id, token, "failed")
        assert again(world, job).status == "completed"


def test_the_default_threshold_is_ten_percent_of_twenty(tmp_path: Path) -> None:
    """The twentieth end decides for the first time."""
    with World(tmp_path) as world:
        fleet = _fleet(world, 21)
        job = make(world, list(fleet), **FAST)
        work(world, job, minutes=0.1)
        for number, (device_id, token) in enumerate(fleet.items(), 1):
            if number <= 20:
                assert again(world, job).status == "running"
                _end(world, device_id, token, "failed" if number <= 2 else "executed")
        assert again(world, job).status == "aborted"


# --- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_takes_back_what_is_not_delivered(tmp_path: Path) -> None:
    """From its transaction on nothing is queued. The rest happens in parts, and may be repeated."""
    with World(tmp_path) as world:
        fleet = _fleet(world, 4)
        job = make(world, list(fleet), pace={"per_minute": 60})
        for _ in range(3):
            turns(world, job)
            world.now += 1_000
        one, two, three, _ = fleet
        _end(world, one, fleet[one], "delivered")
        verbs(world, job, "cancel")
        assert turns(world, job) == 0
        assert world.run(job_work.take_turns, job.id) == 0
        for _ in range(2):
            take_back(world, job)
        assert [outcome for outcome, _ in outcomes(world, job)] == ["delivered", *["cancelled"] * 3]
        assert [world.token_states(each)[-1] for each in (two, three)] == ["revoked"] * 2
        require_counts(world, job)
        _end(world, one, fleet[one], "executed")
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


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("G14")
def test_a_gateway_that_dies_between_two_groups_does_nothing_twice(tmp_path: Path) -> None:
    """The registry is opened again after each transaction. Each device gets one reset, in the end all have one."""
    with World(tmp_path) as world:
        job = make(world, list(_fleet(world, 30)), **FAST)
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
        job = make(world, list(_fleet(world, 3)), **FAST)
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
        fleet = _fleet(world, 12)
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
