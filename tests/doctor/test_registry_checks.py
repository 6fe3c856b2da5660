"""What the doctor finds in a registry, where a function call shows it."""

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.core.clock import system_clock
from gateway.doctor.findings import Finding, Level
from gateway.doctor.registry_checks import contents
from gateway.store import broker_sql
from tests.domain.brokers import disown, own, with_homes
from tests.domain.job_support import make, turns
from tests.domain.support import World


def _finding(world: World, name: str) -> Finding:
    return {each.name: each for each in contents(world.view, 1_000_000, None)}[name]


def _jobs(world: World) -> Finding:
    return _finding(world, "jobs")


def test_wrong_counts_of_devices_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that counts again; after it the counts are right."""
    with World(tmp_path) as world:
        world.bound()
        assert _finding(world, "counts").level is Level.OK
        world.connection.execute("UPDATE device_counts SET bound = bound + 1")
        wrong = _finding(world, "counts")
        assert wrong.level is Level.ERROR
        assert world.project_id in str(wrong)
        assert "gateway registry recount" in str(wrong)
        assert main(["registry", "recount", "--data-dir", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"devices": 1, "mended": [world.project_id]}
        assert _finding(world, "counts").level is Level.OK


def test_devices_whose_home_has_no_gateway_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a count that differs from the homes is named, with the command that mends it."""
    with with_homes(tmp_path) as world:
        for number in range(3):
            world.bound(f"SN-{number}")
        assert "home brokers" not in {each.name for each in contents(world.view, 1_000_000, None)}
        disown(world, "default")
        found = _finding(world, "home brokers")
        assert (found.level, found.says) == (
            Level.WARNING,
            "2 devices can connect to the broker 'default' alone",
        )
        own(world, "default")
        world.connection.execute("UPDATE brokers SET devices = devices + 1")
        assert _finding(world, "home brokers").level is Level.ERROR
        assert main(["registry", "recount", "--data-dir", str(tmp_path), "--json"]) == 0
        assert "home brokers" not in {each.name for each in contents(world.view, 1_000_000, None)}
        capsys.readouterr()


def test_a_broker_without_a_gateway_is_named(tmp_path: Path) -> None:
    """With what to do about it. One broker alone is no finding, nor are several that are served."""
    with World(tmp_path) as world:
        assert "brokers" not in {each.name for each in contents(world.view, 1_000_000, None)}
        world.now = system_clock()  # a lease ends by the clock of the database
        for broker_id in ("default", "brk_b"):
            world.run(broker_sql.join, broker_id)
            own(world, broker_id)
        assert _finding(world, "brokers").level is Level.OK
        disown(world, "brk_b")
        found = _finding(world, "brokers")
        assert (found.level, found.says) == (Level.WARNING, "no gateway serves the broker 'brk_b'")
        assert "gateway registry forget-broker brk_b" in str(found.remedy)


def test_jobs_whose_counts_differ_from_their_targets_are_named(tmp_path: Path) -> None:
    """Each count is compared, and the total."""
    with World(tmp_path) as world:
        (device_id, _) = world.bound()
        job = make(world, [device_id, "dev_never"])
        turns(world, job)
        found = _jobs(world)
        assert (found.level, found.says) == (Level.OK, "1 kept, each with the counts of its targets")
        for column in ("total", "queued", "delivered", "executed", "failed", "cancelled", "skipped"):
            world.connection.execute(f"UPDATE jobs SET {column} = {column} + 1")  # noqa: S608 - columns of this test
            wrong = _jobs(world)
            assert wrong.level is Level.ERROR
            assert job.id in str(wrong)
            world.connection.execute(f"UPDATE jobs SET {column} = {column} - 1")  # noqa: S608 - the same
