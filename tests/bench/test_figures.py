"""A bound of the benchmark holds on any machine: where everything takes twice the time, no line turns red."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bench import cluster, fleet, ingest, loading, memory, reads, reset, throughput
from bench.figures import Figure, Pair, at_most
from bench.machine import Machine
from bench.report import Report, write

TAKEN = ingest.Taken(messages_per_second=60_000, offered_per_second=70_000, cpu_seconds=1.4)
INGEST = ingest.Round(TAKEN, replace(TAKEN, messages_per_second=48_000), bare_loop_seconds=0.5)
RESET = reset.Round((1.9, 2.0, 3.1), (1.2, 1.3, 2.0))
AT_ONCE = throughput.Round(throughput.Side(500, 0.6, [50.0]), throughput.Side(500, 0.5, [45.0]))
READS = reads.Round((1.4, 7.0), (1.2, 3.5), (1.3, 6.0), stored_per_second=45_000.0)
CLUSTER = {1: cluster.Taken(50_000.0, 1.9), 2: cluster.Taken(48_000.0, 1.95), 4: cluster.Taken(45_000.0, 2.0)}
LOADING = loading.Round(loading.Made(89_000, 600_000), loading.Made(4_500_000, 4_500_000), 0.5)
FLEET = fleet.Round(0.042, 0.02, 8.0, 0.1, 7.0, 3.0, fleet.Spent(1.7, 2.5, 5.4))
MEMORY = memory.Round(beside_mosquitto=68.2, embedded=70.8, floor=59.5)
SLOWER: dict[str, Callable[[float], float]] = {
    "messages_per_second": lambda rate: rate / 2,
    "offered_per_second": lambda rate: rate / 2,
    "per_second": lambda rate: rate / 2,
    "stored_per_second": lambda rate: rate / 2,
    "per_cpu_second": lambda rate: rate / 2,
    # A pause before a device returns and the pace of a job take as long on any machine.
    "all_back": lambda seconds: fleet.JITTER_SECONDS + 2 * (seconds - fleet.JITTER_SECONDS),
    "fleet_reset": lambda seconds: seconds,
    "fleet_answered": lambda seconds: seconds,
}


def half_as_fast(part: Any) -> Any:
    """The same round on a machine of half the speed."""
    if is_dataclass(part) and not isinstance(part, type):
        changed = {each.name: getattr(part, each.name) for each in fields(part)}
        return replace(part, **{name: _slower(name, value) for name, value in changed.items()})
    if isinstance(part, dict):
        return {key: half_as_fast(each) for key, each in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(map(_twice, part))
    return part


def _slower(name: str, value: Any) -> Any:
    return SLOWER.get(name, _twice)(value) if isinstance(value, float) else half_as_fast(value)


def _twice(seconds: float) -> float:
    return 2 * seconds


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (lambda it: ingest.figures([it], 100, 1_000, 1.2), INGEST),
        (lambda it: reset.figures([it], 1.7), RESET),
        (lambda it: throughput.figures([it], 0.6), AT_ONCE),
        (lambda it: reads.figures([it]), READS),
        (lambda it: cluster.figures([it]), CLUSTER),
        (lambda it: loading.figures([it]), LOADING),
        (lambda it: fleet.figures([it], 19_900), FLEET),
        (lambda it: memory.figures([it]), MEMORY),
    ],
    ids=["ingest", "reset", "resets at once", "reads", "several gateways", "load", "fleet", "memory"],
)
def test_a_machine_half_as_fast_turns_no_line_red(of: Callable[[Any], list[Figure]], found: Any) -> None:
    """Each target is one of a ratio, and each line that had reached it still has."""
    here, there = of(found), of(half_as_fast(found))
    assert here != there
    bounds = [each for each in here if each.target is not None]
    assert bounds
    assert all(each.target is not None and each.target.of == "ratio" for each in bounds)
    for each, slower in zip(here, there, strict=True):
        assert (each.share is None) == (slower.share is None)
        assert each.share is None or each.share[1] <= 1, each
        assert slower.share is None or slower.share[1] <= 1, slower


def test_a_report_makes_its_folder(tmp_path: Path) -> None:
    """With all folders above it; an old report there is replaced."""
    figure = Figure("heartbeats stored", "1/s", "mosquitto_sub", (Pair(2.0, 1.0),), at_most(3))
    machine = Machine(2, "Linux x86_64", "ext4", {"Python": "3.11.7"})
    folder = tmp_path / "reports" / "new"
    for rounds in (1, 2):
        write(Report(machine, rounds, quick=True, others=(0.0,), figures=(figure,)), folder)
    assert "\n2 rounds of the quick form." in (folder / "report.md").read_text("utf-8")
    assert (folder / "share.svg").read_text("utf-8").startswith("<svg")
