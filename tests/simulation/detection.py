"""How soon the simulation catches a deliberate fault, and how short the story of it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

from tests.simulation.broker_plans import has_brokers
from tests.simulation.cluster_plans import is_clustered
from tests.simulation.home_plans import has_homes
from tests.simulation.mutant_catalogue import MUTANTS, Mutant
from tests.simulation.plan import make_plan
from tests.simulation.run import Outcome, run
from tests.simulation.shrink import Shrinker

MAX_SEEDS = 1_000
MAX_CLUSTERED = 5_000
"""Six of a hundred seeds are plans of several gateways at one broker: of so many, 300."""
MAX_BROKERS = 200_000
"""One of a hundred seeds is a plan of several brokers: of so many, 2,000. In a quarter of these devices have homes."""
TABLE: Final = Path(__file__).parents[2] / "docs" / "simulation.md"
_ROW: Final = re.compile(r"^\| (?P<fault>[^|]+) \| \d+: [^|]+ \| (?P<seeds>\d+) \|", re.MULTILINE)


@dataclass(frozen=True)
class Detection:
    """``seeds`` is after how many; ``outcome`` the first that failed, ``shrunk`` the shortest that fails alike."""

    mutant: Mutant
    seeds: int
    outcome: Outcome
    shrunk: Outcome


def first_failure(seeds: Iterable[int] = range(MAX_SEEDS)) -> Outcome | None:
    """How the first of these seeds ended that did not end well; ``None`` when all did."""
    outcomes = (run(make_plan(seed)) for seed in seeds)
    return next((outcome for outcome in outcomes if outcome.violation is not None), None)


def seeds_for(mutant: Mutant) -> Iterable[int]:
    """The seeds that may show a fault."""
    if mutant.homes:
        return filter(has_homes, range(MAX_BROKERS))
    if mutant.several_brokers:
        return (seed for seed in range(MAX_BROKERS) if has_brokers(seed) and not has_homes(seed))
    return filter(is_clustered, range(MAX_CLUSTERED)) if mutant.clustered else range(MAX_SEEDS)


def likely_first(mutant: Mutant) -> Iterator[int]:
    """All seeds, first the one that caught this fault when the table was printed: a rare fault is found at once.

    It may end well by now. Then the others have to show that the fault is caught.
    """
    told = _told_seeds().get(mutant.name)
    return iter(seeds_for(mutant)) if told is None else chain((told,), seeds_for(mutant))


@cache
def _told_seeds() -> dict[str, int]:
    return {row["fault"]: int(row["seeds"]) - 1 for row in _ROW.finditer(TABLE.read_text())}


def detect_all() -> Iterator[Detection | Mutant]:
    """Plant one after the other; a fault that comes back as it is was not caught."""
    for mutant in MUTANTS.values():
        with mutant.apply():
            found = first_failure(seeds_for(mutant))
            yield mutant if found is None else Detection(mutant, found.plan.seed + 1, found, Shrinker(found).shrink())


def format_table(results: Iterator[Detection | Mutant]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| fault | caught by | seeds | steps | shrunk to |"
    yield "|---|---|---|---|---|"
    for each in results:
        if isinstance(each, Mutant):
            yield f"| {each.name} | **not caught** | | | |"
            continue
        law = each.outcome.violation
        caught = "" if law is None else f"{law.invariant}: {law.law}"
        steps, fewer = len(each.outcome.plan.steps), len(each.shrunk.plan.steps)
        yield f"| {each.mutant.name} | {caught} | {each.seeds} | {steps} | {fewer} |"
