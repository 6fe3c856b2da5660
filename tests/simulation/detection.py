"""How soon the simulation catches a deliberate fault, and how short the story of it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.mutant_catalogue import FAULTS, Fault
from tests.simulation.plan import plan_of
from tests.simulation.run import Outcome, run
from tests.simulation.shrink import Shrinker

MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Caught:
    """``seeds`` is after how many; ``outcome`` the first that failed, ``shrunk`` the shortest that fails alike."""

    fault: Fault
    seeds: int
    outcome: Outcome
    shrunk: Outcome


def first_failure(most: int = MOST_SEEDS) -> tuple[int, Outcome] | None:
    """How many seeds it took, and how the last of them ended; ``None`` when all ended well."""
    for seed in range(most):
        outcome = run(plan_of(seed))
        if outcome.violation is not None:
            return seed + 1, outcome
    return None


def catch_all() -> Iterator[Caught | Fault]:
    """Plant one after the other; a fault that comes back as it is was not caught."""
    for fault in FAULTS.values():
        with fault.plant():
            found = first_failure()
            yield fault if found is None else Caught(fault, *found, Shrinker(found[1]).shrunk())


def table(results: Iterator[Caught | Fault]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| fault | caught by | seeds | steps | shrunk to |"
    yield "|---|---|---|---|---|"
    for each in results:
        if isinstance(each, Fault):
            yield f"| {each.name} | **not caught** | {MOST_SEEDS} | | |"
            continue
        law = each.outcome.violation
        caught = "" if law is None else f"{law.invariant}: {law.law}"
        steps, fewer = len(each.outcome.plan.steps), len(each.shrunk.plan.steps)
        yield f"| {each.fault.name} | {caught} | {each.seeds} | {steps} | {fewer} |"
