"""The simulation bites: every deliberate fault in gateway or firmware is caught, by an invariant that it breaks."""

import pytest

from tests.simulation.detection import first_failure, likely_first
from tests.simulation.mutant_catalogue import MUTANTS
from tests.simulation.plan import make_plan
from tests.simulation.run import Outcome, run
from tests.simulation.run_report import format_run
from tests.simulation.shrink import Shrinker


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_detected(name: str) -> None:
    """By one of a thousand seeds, and by the invariant that it breaks."""
    mutant = MUTANTS[name]
    with mutant.apply():
        outcome = first_failure(likely_first(mutant))
    assert outcome is not None, f"'{name}' goes unnoticed"
    print(f"caught by seed {outcome.plan.seed}: {outcome.violation}")  # noqa: T201 - what pytest shows on failure
    assert outcome.violation is not None
    assert outcome.violation.invariant in mutant.invariants


def test_a_failure_is_shrunk_to_a_readable_story() -> None:
    """Of a long plan only the steps stay that matter, and the story ends with the law that was broken."""
    with MUTANTS["a reset revokes the token at once"].apply():
        failed = _failing_with_many_steps()
        shrunk = Shrinker(failed).shrink()
    assert shrunk.violation is not None
    assert failed.violation is not None
    assert shrunk.violation.law == failed.violation.law
    assert [step.kind for step in shrunk.plan.steps] in (["reset"], ["bulk_reset"], ["reset_beside"])
    story = format_run(shrunk).splitlines()
    assert story[0].startswith(f"seed {failed.plan.seed}")
    assert str(shrunk.violation.law) in story[-1]
    assert len(story) < 60


def _failing_with_many_steps() -> Outcome:
    for seed in range(200):
        outcome = run(make_plan(seed))
        if outcome.violation is not None and len(outcome.plan.steps) > 12:
            return outcome
    raise AssertionError("no long plan failed")
