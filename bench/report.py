"""The figures for people (a table) and for machines (JSON)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from bench.figures import Figure
from bench.machine import Machine

_BUSY = 0.1  # above this share of the machine in other hands the figures are marked as such
_WHOLE = 1_000


@dataclass(frozen=True)
class Report:
    """One run."""

    machine: Machine
    rounds: int
    quick: bool
    others: tuple[float, ...]
    """Share of the cores (0 to 1) that other programs kept busy during each round."""

    figures: tuple[Figure, ...]

    @property
    def disturbed(self) -> bool:
        """Whether others used so much of the machine that the absolute figures mean little."""
        return max(self.others) > _BUSY


def as_json(report: Report) -> str:
    """Medians, ratios and every round, as a JSON document."""
    facts = asdict(report) | {"disturbed": report.disturbed, "figures": [_facts(each) for each in report.figures]}
    return json.dumps(facts, indent=2)


def _facts(figure: Figure) -> dict[str, object]:
    medians = {"gateway": figure.gateway, "floor": figure.floor, "ratio": figure.ratio}
    return asdict(figure) | medians


def show(report: Report, console: Console) -> None:
    """Print the table and what belongs beside it."""
    table = Table(box=None, pad_edge=False)
    table.add_column("WHAT")
    for heading in ("GATEWAY", "FLOOR", "RATIO", "SPREAD"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("UNIT", no_wrap=True)
    table.add_column("THE FLOOR")
    for each in report.figures:
        cells = (_number(each.gateway), _number(each.floor), _ratio(each.ratio), _spread(each))
        table.add_row(each.name, *cells, each.unit, each.floor_is)
    console.print(table)
    console.print(f"\nMedians of {report.rounds} rounds; ratio: gateway / floor of the same round; spread: its range.")
    console.print("Of rates more is better, of everything else less. What is measured and how: docs/benchmarks.md.")
    console.print(str(report.machine))
    console.print(_company(report.others, disturbed=report.disturbed))


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
