"""Many seeds, one after the other; of each law that is broken the first plan is shrunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.plan import make_plan
from tests.simulation.run import Outcome, run
from tests.simulation.shrink import Shrinker

PROGRESS_EVERY = 1_000


@dataclass
class Report:
    """What came of it: ``failed`` has one shrunk outcome for each law, ``violations`` counts all seeds that failed."""

    seeds: int = 0
    violations: int = 0
    virtual_seconds: float = 0.0
    failed: list[Outcome] = field(default_factory=list)


def soak(first: int, count: int, *, progress: Callable[[int], None] = lambda _: None) -> Report:
    """Run ``count`` seeds from ``first`` on."""
    report, laws = Report(), set()
    for seed in range(first, first + count):
        outcome = run(make_plan(seed))
        report.seeds += 1
        report.virtual_seconds += outcome.seconds
        if outcome.violation is not None:
            report.violations += 1
            if outcome.violation.law not in laws:
                laws.add(outcome.violation.law)
                report.failed.append(Shrinker(outcome).shrink())
        if report.seeds % PROGRESS_EVERY == 0:
            progress(report.seeds)
    return report
