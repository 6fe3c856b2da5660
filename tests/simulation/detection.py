"""How soon the simulation catches a deliberate fault, and how short the story of it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.mutant_catalogue import MUTANTS, Mutant
from tests.simulation.plan import make_plan
from tests.simulation.run import Outcome, run
from tests.simulation.shrink import Shrinker

MAX_SEEDS = 1_000


@dataclass(frozen=True)
class Detection:
    """``seeds`` is after how many; ``outcome`` the first that failed, ``shrunk`` the shortest that fails alike."""

    mutant: Mutant
    seeds: int
    outcome: Outcome
    shrunk: Outcome


def first_failure(most: int = MAX_SEEDS) -> tuple[int, Outcome] | None:
    """How many seeds it took, and how the last of them ended; ``None`` when all ended well."""
    for seed in range(most):
        outcome = run(make_plan(seed))
        if outcome.violation is not None:
            return seed + 1, outcome
    return None


def detect_all() -> Iterator[Detection | Mutant]:
    """Plant one after the other; a fault that comes back as it is was not caught."""
    for mutant in MUTANTS.values():
        with mutant.apply():
            found = first_failure()
            yield mutant if found is None else Detection(mutant, *found, Shrinker(found[1]).shrink())


def format_table(results: Iterator[Detection | Mutant]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| fault | caught by | seeds | steps | shrunk to |"
    yield "|---|---|---|---|---|"
    for each in results:
        if isinstance(each, Mutant):
            yield f"| {each.name} | **not caught** | {MAX_SEEDS} | | |"
            continue
        law = each.outcome.violation
        caught = "" if law is None else f"{law.invariant}: {law.law}"
        steps, fewer = len(each.outcome.plan.steps), len(each.shrunk.plan.steps)
        yield f"| {each.mutant.name} | {caught} | {each.seeds} | {steps} | {fewer} |"
