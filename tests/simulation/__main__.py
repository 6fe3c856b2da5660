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

from tests.simulation.detection import detect_all, format_table
from tests.simulation.plan import make_plan
from tests.simulation.run import run
from tests.simulation.run_report import format_run
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
    arguments = parser.parse_args()
    if arguments.faults:
        return _list_mutants()
    if arguments.seed is not None:
        return _run_one(arguments.seed, whole=arguments.whole)
    first = secrets.randbelow(1 << 40) if arguments.first is None else arguments.first
    return _run_many(first, arguments.seeds)


def _list_mutants() -> int:
    for line in format_table(detect_all()):
        _print(line)
    return 0


def _run_one(seed: int, *, whole: bool) -> int:
    outcome = run(make_plan(seed))
    if outcome.violation is not None and not whole:
        outcome = Shrinker(outcome).shrink()
    _print(format_run(outcome))
    return int(outcome.violation is not None)


def _run_many(first: int, count: int) -> int:
    _print(f"seeds {first} to {first + count - 1}")
    started_at = time.process_time()
    report = soak(
        first, count, progress=lambda done: _print(f"  {done} run, {time.process_time() - started_at:.0f} s of CPU")
    )
    for outcome in report.failed:
        _print(f"\n{format_run(outcome)}\n\n  again: make replay SEED={outcome.plan.seed}")
    _print(_summary(report, time.process_time() - started_at))
    return int(bool(report.failed))


def _summary(report: Report, seconds: float) -> str:
    each = 1_000 * seconds / max(1, report.seeds)
    return (
        f"{report.seeds} seeds, {report.virtual_seconds / 3_600:.1f} virtual hours, {seconds:.0f} s of CPU "
        f"({each:.1f} ms each); {len(report.failed)} laws broken, by {report.violations} seeds"
    )


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's output


if __name__ == "__main__":
    sys.exit(main())
