"""The benchmark of growth: every row on both engines with tiny registries, and its report."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.figures import Pair
from bench.growth import rows
from bench.growth.__main__ import run
from bench.growth.plan import Plan
from bench.growth.report import Report, write
from bench.growth.rows import CallRow, Growth
from bench.growth.run import ENGINES
from bench.machine import Machine
from bench.process import BenchError

SIZES = (50, 100)
TINY = Plan(
    rounds=1, calls=2, rest_seconds=0.1, senders=5, each=4, resets=2, binds=1, revocations=1, burst_seconds=1, history=2
)
DEVICE = CallRow("device", "one device", 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_row_is_measured_on_each_engine(engine: str, tmp_path: Path) -> None:
    """At 50 and at 100 devices, with real brokers and gateways, and the report has each row."""
    notes: list[str] = []
    report = asyncio.run(run(engine, tmp_path / "run", SIZES, TINY, notes.append))
    found = report.growth
    assert found.ended_by is None
    assert [row for row in rows.COSTS if row not in set(found.rows())] == []
    assert len(list(found.rows())) == len(rows.COSTS) + 2 * len(found.calls)
    for row in found.rows():
        assert {size: len(found.values[row][size]) for size in SIZES} == dict.fromkeys(SIZES, 1), row
    assert notes[0].startswith("50 devices: devices")
    write(report, tmp_path / "reports" / "new")
    document = json.loads((tmp_path / "reports" / "new" / f"growth-{engine}.json").read_text("utf-8"))
    assert [each["name"] for each in document["rows"]] == [row.name for row in found.rows()]


def grown(**values: tuple[float, float]) -> Growth:
    """Return what is measured in two rounds: a device, its p99 at the small and at the large registry."""
    found = Growth("sqlite", (1_000, 1_000_000), (DEVICE,))
    for name, pairs in values.items():
        row = {"p50": DEVICE.p50, "p99": DEVICE.p99, "ready": rows.READY, "rest": rows.REST_BROKER}[name]
        for size, value in zip(found.sizes, pairs, strict=True):
            found.add(row, size, value, value)
    return found


def test_the_bound_of_a_call_is_one_of_the_ratio() -> None:
    """That of a start is one of the largest registry. A row without a bound, or with a floor of 0, has no verdict."""
    found = grown(p50=(1, 2), p99=(2, 8), ready=(1, 4), rest=(0, 7))
    figures = {figure.name: figure for figure in found.figures()}
    device, ready = figures["device, p99"], figures["start: until ready"]
    assert (device.ratio, device.share) == (4, (4 / 3, 4 / 3, 4 / 3))
    assert (ready.ratio, ready.share) == (4, (4 / 5, 4 / 5, 4 / 5))
    assert figures["device, p50"].share is None
    assert figures["Mosquitto at rest"].ratio is None
    assert Pair(1.0, 0.0).ratio is None


def test_the_report_says_what_is_not_reached(tmp_path: Path) -> None:
    """In words, as JSON, and in plots that are well-formed also where a value is 0."""
    found = grown(p50=(1, 2), p99=(2, 8), ready=(1, 4), rest=(0, 7))
    machine = Machine(2, "Linux x86_64", "ext4", {"Python": "3.11.7"})
    report = Report(found, Plan(), machine, others=0.0, seconds=60)
    write(report, tmp_path)
    page = (tmp_path / "growth-sqlite.md").read_text("utf-8")
    assert "| device | 1 / 2 | 2 / 8 | 2 / 4 (4 to 4) | ratio ≤ 3 | **not reached** |" in page
    assert "| start: until ready, s | 1 | 4 | 4 (4 to 4) | ≤ 5 s | reached |" in page
    assert "Not a quiet machine" not in page
    write(replace(report, others=0.5), tmp_path)
    assert "Not a quiet machine" in (tmp_path / "growth-sqlite.md").read_text("utf-8")
    document = json.loads((tmp_path / "growth-sqlite.json").read_text("utf-8"))
    assert [each["reached"] for each in document["rows"]] == [None, False, True, None]
    assert document["rows"][1]["rounds"] == {"1000": [2, 2], "1000000": [8, 8]}
    for plot in ("share", "calls", "costs"):
        assert f"(growth-sqlite-{plot}.svg)" in page
        ET.parse(tmp_path / f"growth-sqlite-{plot}.svg")  # noqa: S314 - written here


def test_a_run_that_ended_early_reports_what_it_has(tmp_path: Path) -> None:
    """A row that was not measured at each size is left out, and so is a round that is not whole."""
    found = grown(p50=(1, 2), p99=(2, 8))
    found.add(rows.READY, 1_000, 1)
    found.add(DEVICE.p50, 1_000, 1)
    found.ended_by = "gateway serve ended with 1\nits last line"
    write(Report(found, Plan(), Machine(2, "Linux", "ext4", {}), others=0.0, seconds=60), tmp_path)
    page = (tmp_path / "growth-sqlite.md").read_text("utf-8")
    assert "**The run ended early**: gateway serve ended with 1\n\n" in page
    assert "| device |" in page
    assert "start: until ready" not in page


def test_all_registries_have_as_many_senders_as_the_smallest_allows() -> None:
    """A registry that is too small for the other devices is refused."""
    others = Plan().members - Plan().senders
    assert Plan().fitting(100_000) == Plan()
    assert Plan().fitting(200 + others).senders < Plan().senders
    with pytest.raises(BenchError, match="too few"):
        Plan().fitting(others)
