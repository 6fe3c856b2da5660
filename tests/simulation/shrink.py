"""Makes a failing plan as short as it can be while it breaks the same law (delta debugging, Zeller and Hildebrandt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulation.model_state import Violation
from tests.simulation.plan import Configuration, Plan
from tests.simulation.run import Outcome, run
from tests.simulation.step import Step

MAX_RUNS = 400


class Shrinker:
    """``runs`` counts how often it was tried."""

    def __init__(self, failed: Outcome, runner: Callable[[Plan], Outcome] = run) -> None:
        self.best = failed
        self.runs = 0
        self._runner = runner
        self._law = _law(failed.violation)

    def shrink(self) -> Outcome:
        """The shortest outcome found that breaks the same law."""
        self._shrink_configuration()
        self._shrink_steps()
        self._shrink_configuration()
        return self.best

    def _fails(self, plan: Plan) -> bool:
        if self.runs >= MAX_RUNS:
            return False
        self.runs += 1
        outcome = self._runner(plan)
        if _law(outcome.violation) != self._law:
            return False
        self.best = outcome
        return True

    def _shrink_steps(self) -> None:
        size = max(1, len(self.best.plan.steps) // 2)
        while size:
            if not any(self._fails(self.best.plan.only(fewer)) for fewer in _without(self.best.plan.steps, size)):
                size //= 2
            size = min(size, len(self.best.plan.steps))

    def _shrink_configuration(self) -> None:
        for simpler in _simpler(self.best.plan.configuration):
            self._fails(replace(self.best.plan, configuration=simpler))


def _without(steps: tuple[Step, ...], size: int) -> Iterator[tuple[Step, ...]]:
    for start in range(0, len(steps), size):
        yield steps[:start] + steps[start + size :]


def _simpler(configuration: Configuration) -> Iterator[Configuration]:
    """One of its peculiarities less at a time."""
    plain = Configuration(kinds=configuration.kinds)
    for name in (
        "reorder",
        "duplicate",
        "wildcard_retained",
        "version_5",
        "embedded",
        "watching",
        "mirrored",
        "shelf",
        "latency",
        "slow",
    ):
        if getattr(configuration, name) != getattr(plain, name):
            configuration = replace(configuration, **{name: getattr(plain, name)})
            yield configuration


def _law(violation: Violation | None) -> tuple[int, str] | None:
    return None if violation is None else (violation.invariant, violation.law)
