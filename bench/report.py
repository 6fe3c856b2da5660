"""Report of the figures, for people (a table) and for machines (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.machine import Machine
from bench.plots import bars, curves

_BUSY = 0.1  # above this share of other programs the figures are marked
_WHOLE = 1_000
_HEAD: Final = """# The last run

Written by `make bench`; how it is measured and how to read it: [README.md](README.md). *To reach* is a bound on the
ratio where there is a floor, else on the gateway's figure."""


@dataclass(frozen=True)
class Report:
    """Report of one run."""

    machine: Machine
    rounds: int
    quick: bool
    others: tuple[float, ...]
    """Share of the cores (0 to 1) that other programs kept busy during each round."""

    figures: tuple[Figure, ...]
    spreads: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Every value of a measurement, by side, in milliseconds, for plots."""

    @property
    def disturbed(self) -> bool:
        """Return whether other programs used so much of the machine that the absolute figures mean little."""
        return max(self.others) > _BUSY


def as_json(report: Report) -> str:
    """Return medians, ratios and every round as a JSON document."""
    facts = asdict(report) | {"disturbed": report.disturbed, "figures": [_facts(each) for each in report.figures]}
    del facts["spreads"]
    return json.dumps(facts, indent=2)


def _facts(figure: Figure) -> dict[str, object]:
    medians = {"gateway": figure.gateway, "floor": figure.floor, "ratio": figure.ratio}
    return asdict(figure) | medians


def show(report: Report, console: Console) -> None:
    """Print the table and its notes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("WHAT", min_width=26)
    for heading in ("GATEWAY", "FLOOR", "RATIO", "SPREAD", "REACH"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("UNIT", no_wrap=True)
    for each in report.figures:
        cells = (_number(each.gateway), _number(each.floor), _ratio(each.ratio), _spread(each), _target(each))
        table.add_row(each.name, *cells, each.unit)
    console.print(table)
    console.print(f"\nMedians of {report.rounds} rounds; ratio: gateway / floor of the same round; spread: its range.")
    console.print("Of rates more is better, of everything else less. What is measured and how: docs/benchmarks.")
    console.print(str(report.machine))
    console.print(_company(report.others, disturbed=report.disturbed))


def write(report: Report, folder: Path) -> None:
    """Write a page of Markdown with the table, and its plots, into this folder. Make the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "share.svg").write_text(bars(report.figures))
    pictures = ["![how much of what is allowed each figure uses](share.svg)"]
    for name, sides in report.spreads.items():
        (folder / f"{name}.svg").write_text(curves(sides, "a reset until the device has it"))
        pictures.append(f"![milliseconds by percentile]({name}.svg)")
    (folder / "report.md").write_text("\n\n".join((_HEAD, *_words(report), _rows(report), *pictures)) + "\n")


def _words(report: Report) -> tuple[str, ...]:
    form = "the quick form" if report.quick else "the full form"
    return (
        f"{report.rounds} rounds of {form}. {report.machine}.",
        _company(report.others, disturbed=report.disturbed),
    )


def _rows(report: Report) -> str:
    head = "| what | gateway | floor | ratio | its range | to reach | |\n|---|---:|---:|---:|---:|---:|---|"
    return "\n".join((head, *(_row(each) for each in report.figures)))


def _row(figure: Figure) -> str:
    share = figure.share
    reached = "" if share is None else ("reached" if share[1] <= 1 else "**not reached**")
    values = (_number(figure.gateway), _number(figure.floor), _ratio(figure.ratio), _spread(figure), _target(figure))
    return f"| {figure.name}, {figure.unit} | {' | '.join(values)} | {reached} |"


def _target(figure: Figure) -> str:
    return "" if figure.target is None else str(figure.target)


def _company(shares: Sequence[float], *, disturbed: bool) -> str:
    said = f"Other programs used {min(shares):.0%} to {max(shares):.0%} of the cores during the rounds."
    return f"{said} Not a quiet machine: the figures are worth little, the ratios somewhat more." if disturbed else said


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(figure: Figure) -> str:
    ratios = [pair.ratio for pair in figure.rounds if pair.ratio is not None]
    return f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else ""
