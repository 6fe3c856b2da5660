"""``python -m tests.simulation``: run many seeds, or one again.

--seeds N --first S   run N seeds from S on (a random start when none is named)
--seed S              run this one, tell its story, shrunk when it fails
--whole               with --seed: do not shrink it
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.simulation.detection import catch_all, table
from tests.simulation.plan import plan_of
from tests.simulation.run import run
from tests.simulation.run_report import told
from tests.simulation.shrink import Shrinker
from tests.simulation.soak import Report, soak


def main() -> int:
    """The exit code: 1 when an invariant was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Deterministic simulation of the gateway"
    )
    parser.add_argument("--seeds", type=int, default=1_000, help="how many to run")
    parser.add_argument("--first", type=int, default=None, help="the first seed (random)")
    parser.add_argument("--seed", type=int, default=None, help="run this one alone and tell its story")
    parser.add_argument("--whole", action="store_true", help="with --seed: do not shrink what fails")
    parser.add_argument("--faults", action="store_true", help="plant deliberate faults, and tell how each is caught")
    asked = parser.parse_args()
    if asked.faults:
        return _faults()
    if asked.seed is not None:
        return _one(asked.seed, whole=asked.whole)
    first = secrets.randbelow(1 << 40) if asked.first is None else asked.first
    return _many(first, asked.seeds)


def _faults() -> int:
    for line in table(catch_all()):
        _say(line)
    return 0


def _one(seed: int, *, whole: bool) -> int:
    outcome = run(plan_of(seed))
    if outcome.violation is not None and not whole:
        outcome = Shrinker(outcome).shrunk()
    _say(told(outcome))
    return int(outcome.violation is not None)


def _many(first: int, count: int) -> int:
    _say(f"seeds {first} to {first + count - 1}")
    began = time.process_time()
    report = soak(first, count, progress=lambda done: _say(f"  {done} run, {time.process_time() - began:.0f} s of CPU"))
    for outcome in report.failed:
        _say(f"\n{told(outcome)}\n\n  again: make replay SEED={outcome.plan.seed}")
    _say(_summary(report, time.process_time() - began))
    return int(bool(report.failed))


def _summary(report: Report, seconds: float) -> str:
    each = 1_000 * seconds / max(1, report.seeds)
    return (
        f"{report.seeds} seeds, {report.virtual_seconds / 3_600:.1f} virtual hours, {seconds:.0f} s of CPU "
        f"({each:.1f} ms each); {len(report.failed)} laws broken, by {report.violations} seeds"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's output


if __name__ == "__main__":
    sys.exit(main())
