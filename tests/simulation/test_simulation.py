"""Thousands of lives of gateway, broker and devices, each from a seed: no invariant is ever broken."""

import secrets

import pytest

from simulation.many import soak
from simulation.plan import plan_of
from simulation.run import run
from simulation.story import told

FIXED, VARIED = 2_000, 1_000


@pytest.mark.parametrize("quarter", range(4))
def test_every_invariant_holds_for_fixed_seeds(quarter: int) -> None:
    """The same seeds in every run, so that a change which breaks something shows at once."""
    _holds(quarter * FIXED // 4, FIXED // 4)


@pytest.mark.parametrize("half", range(2))
def test_every_invariant_holds_for_new_seeds(half: int) -> None:
    """Other seeds in every run; the first is printed, and each that fails says how it is run again."""
    del half
    _holds(secrets.randbelow(1 << 40), VARIED // 2)


def _holds(first: int, count: int) -> None:
    print(f"seeds {first} to {first + count - 1}")  # noqa: T201 - pytest shows it on failure
    report = soak(first, count)
    stories = [f"{told(outcome)}\n  again: make replay SEED={outcome.plan.seed}" for outcome in report.failed]
    assert not stories, "\n\n".join(stories)
    assert report.seeds == count


@pytest.mark.parametrize("seed", [1, 29, 77])
def test_a_seed_is_the_same_each_time(seed: int) -> None:
    """Every line of its story is, to the microsecond; so what failed once can be looked at again."""
    assert told(run(plan_of(seed))) == told(run(plan_of(seed)))
