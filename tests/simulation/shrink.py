"""Makes a failing plan as short as it can be while it breaks the same law (delta debugging, Zeller and Hildebrandt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.model_state import Violation
from tests.simulation.plan import Plan, Surroundings
from tests.simulation.run import Outcome, run
from tests.simulation.step import Step

MOST_RUNS = 400


class Shrinker:
    """``runs`` counts how often it was tried."""

    def __init__(self, failed: Outcome, runner: Callable[[Plan], Outcome] = run) -> None:
        self.best = failed
        self.runs = 0
        self._runner = runner
        self._law = _law(failed.violation)

    def shrunk(self) -> Outcome:
        """The shortest outcome found that breaks the same law."""
        self._surroundings()
        self._steps()
        self._surroundings()
        return self.best

    def _fails(self, plan: Plan) -> bool:
        if self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        outcome = self._runner(plan)
        if _law(outcome.violation) != self._law:
            return False
        self.best = outcome
        return True

    def _steps(self) -> None:
        size = max(1, len(self.best.plan.steps) // 2)
        while size:
            if not any(self._fails(self.best.plan.only(fewer)) for fewer in _without(self.best.plan.steps, size)):
                size //= 2
            size = min(size, len(self.best.plan.steps))

    def _surroundings(self) -> None:
        for simpler in _simpler(self.best.plan.surroundings):
            self._fails(replace(self.best.plan, surroundings=simpler))


def _without(steps: tuple[Step, ...], size: int) -> Iterator[tuple[Step, ...]]:
    for start in range(0, len(steps), size):
        yield steps[:start] + steps[start + size :]


def _simpler(surroundings: Surroundings) -> Iterator[Surroundings]:
    """One of its peculiarities less at a time."""
    plain = Surroundings(kinds=surroundings.kinds)
    for name in (
        "reorder",
        "duplicate",
        "wildcard_retained",
        "version_5",
        "embedded",
        "watching",
        "shown",
        "latency",
        "slow",
    ):
        if getattr(surroundings, name) != getattr(plain, name):
            surroundings = replace(surroundings, **{name: getattr(plain, name)})
            yield surroundings


def _law(violation: Violation | None) -> tuple[int, str] | None:
    return None if violation is None else (violation.invariant, violation.law)
