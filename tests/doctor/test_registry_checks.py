"""What the doctor finds in a registry, where a function call shows it."""

from pathlib import Path

from gateway.doctor.findings import Finding, Level
from gateway.doctor.registry_checks import contents
from tests.domain.job_support import make, turns
from tests.domain.support import World


def _jobs(world: World) -> Finding:
    return {each.name: each for each in contents(world.view, 1_000_000, None)}["jobs"]


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
