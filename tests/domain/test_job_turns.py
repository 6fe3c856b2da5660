"""Turns of the targets of a job: what is queued, and what is skipped."""

from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import DAY_MS
from gateway.domain import commands, epoch
from gateway.store import command_sql, job_target_sql
from tests.domain.job_support import again, bound_fleet, make, outcomes, require_counts, turns, work
from tests.domain.support import World

MINUTE_MS = 60_000
FAST = {"pace": {"per_minute": 60_000}}
NEVER = {"abort": None}


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
        job = make(world, list(bound_fleet(world, 3)))
        world.run(epoch.begin, epoch.RESTORED)
        work(world, job)
        assert outcomes(world, job) == [("skipped", "bound_anew")] * 3
