"""Thousands of runs of gateway, broker and devices, each from a seed: no invariant is ever broken."""

import os
import subprocess
import sys

import pytest

from tests.simulation.plan import make_plan
from tests.simulation.run import run
from tests.simulation.run_report import format_run
from tests.simulation.soak import soak

FIXED = 3_000
PARTS = 12


@pytest.mark.guarantee("G1", "G2", "G6", "G7", "G9", "G12", "G13")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_invariant_holds(part: int) -> None:
    """The same seeds in every run, so that what a change breaks shows at once; ``make soak`` takes others."""
    _holds(part * FIXED // PARTS, FIXED // PARTS)


def _holds(first: int, count: int) -> None:
    print(f"seeds {first} to {first + count - 1}")  # noqa: T201 - pytest shows it on failure
    report = soak(first, count)
    stories = [f"{format_run(outcome)}\n  again: make replay SEED={outcome.plan.seed}" for outcome in report.failed]
    assert not stories, "\n\n".join(stories)
    assert report.seeds == count


@pytest.mark.parametrize("seed", [1, 21, 22, 29, 77])
def test_a_seed_is_the_same_each_time(seed: int) -> None:
    """Every line of its story is, to the microsecond; so what failed once can be looked at again."""
    assert format_run(run(make_plan(seed))) == format_run(run(make_plan(seed)))


def test_a_seed_is_the_same_in_each_process() -> None:
    """Also where text has another hash, and sets another order: ``make replay`` shows what failed elsewhere."""
    assert _told_elsewhere("1") == _told_elsewhere("2")


def _told_elsewhere(hash_seed: str) -> bytes:
    command = (sys.executable, "-m", "tests.simulation", "--seed", "21", "--whole")
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout
