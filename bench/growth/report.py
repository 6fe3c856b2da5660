"""Report of the growth on an engine: a page of Markdown, the same as JSON, and plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure, Target
from bench.growth.plan import Plan
from bench.growth.plot import Lines, growth
from bench.growth.rows import COSTS, Growth, Row
from bench.machine import Machine
from bench.plots import bars

_BUSY: Final = 0.1
_WHOLE: Final = 100
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_HEAD: Final = """Written by `make bench-growth`; how it is measured and how to read it: [README.md](README.md). Each
row is a median over the rounds, beside Mosquitto with its password file. *Ratio*: the largest registry by the smallest,
in the same round, and its range. *To reach*: a bound for the ratio, or for the largest registry where it has a unit."""


@dataclass(frozen=True)
class Report:
    """What was measured, where and beside what."""

    growth: Growth
    plan: Plan
    machine: Machine
    others: float
    """Share of the cores (0 to 1) that other programs used meanwhile."""
    seconds: float
    """Length of the run."""

    @property
    def disturbed(self) -> bool:
        """Return whether other programs used so much of the machine that the absolute figures mean little."""
        return self.others > _BUSY


def write(report: Report, folder: Path) -> None:
    """Write ``growth-ENGINE`` in all forms into this folder. Make the folder if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"growth-{report.growth.engine}"
    (folder / f"{name}.json").write_text(as_json(report))
    (folder / f"{name}-share.svg").write_text(bars(report.growth.figures()))
    pictures = [f"![how much of what is allowed each row uses]({name}-share.svg)"]
    for part, panels in (("calls", call_panels(report.growth)), ("costs", cost_panels(report.growth))):
        (folder / f"{name}-{part}.svg").write_text(growth(panels, report.growth.sizes))
        pictures.append(f"![{part} by the number of devices, on logarithmic axes]({name}-{part}.svg)")
    (folder / f"{name}.md").write_text("\n\n".join((markdown(report), *pictures)) + "\n")


def as_json(report: Report) -> str:
    """Return every value of every round, with medians, ratios and bounds."""
    found = report.growth
    rows = [_facts(found, row) for row in found.rows()]
    head = {
        "engine": found.engine,
        "sizes": found.sizes,
        "plan": asdict(report.plan),
        "machine": asdict(report.machine),
    }
    return (
        json.dumps(
            {**head, "others": report.others, "disturbed": report.disturbed, "ended_by": found.ended_by, "rows": rows},
            indent=1,
        )
        + "\n"
    )


def _facts(found: Growth, row: Row) -> dict[str, object]:
    figure = found.figure(row)
    return {
        "name": row.name,
        "unit": row.unit,
        "target": None if row.target is None else asdict(row.target),
        "reached": _is_reached(figure),
        "medians": found.medians(row),
        "ratio": figure.ratio,
        "rounds": dict(found.values[row]),
    }


def markdown(report: Report) -> str:
    """Return the page without its plots."""
    found = report.growth
    others = f"Other programs used {report.others:.0%} of the cores."
    if report.disturbed:
        others += " Not a quiet machine: the figures are worth little, the ratios somewhat more."
    if found.ended_by is not None:
        others += f"\n**The run ended early**: {found.ended_by.splitlines()[0]}"
    plan = report.plan
    what = (
        f"{plan.rounds} rounds of {plan.calls} calls of each; {plan.history} heartbeats of each device in the history; "
        f"{plan.senders} devices that send {plan.each} each; {report.seconds / 60:.0f} minutes. {report.machine}."
    )
    title = f"# The registry grows on {_NAMES[found.engine]}"
    return "\n\n".join((title, _HEAD, f"{what}\n{others}", _calls(found), _costs(found)))


def _calls(found: Growth) -> str:
    lines = _table_head("a call, p50 / p99 in ms", found, "ratio of p50 / p99 (range)")
    for call in found.calls:
        medians = [found.medians(row) for row in (call.p50, call.p99)]
        cells = [" / ".join(_number(each[size]) for each in medians) for size in found.sizes]
        half, most = found.figure(call.p50), found.figure(call.p99)
        ratios = f"{_ratio(half.ratio)} / {_ratio(most.ratio)}{_range(most)}"
        lines.append(_line([call.name, *cells, ratios, _bound(call.p99.target, "ms"), _verdict(most)]))
    return "\n".join(lines)


def _costs(found: Growth) -> str:
    lines = _table_head("what it costs", found, "ratio (range)")
    for row in [row for row in found.rows() if row in COSTS]:
        cells, figure = [_number(value) for value in found.medians(row).values()], found.figure(row)
        ratio = f"{_ratio(figure.ratio)}{_range(figure)}"
        lines.append(_line([str(row), *cells, ratio, _bound(row.target, row.unit), _verdict(figure)]))
    return "\n".join(lines)


def _table_head(first: str, found: Growth, ratio: str) -> list[str]:
    columns = [*(f"{size:,}" for size in found.sizes), ratio, "to reach"]
    return [_line([first, *columns, ""]), "|---|" + "---:|" * len(columns) + "---|"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _range(figure: Figure) -> str:
    ratios = [pair.ratio for pair in figure.rounds if pair.ratio is not None]
    return f" ({min(ratios):.2g} to {max(ratios):.2g})" if len(ratios) > 1 else ""


def _bound(target: Target | None, unit: str) -> str:
    if target is None:
        return ""
    return f"ratio {target}" if target.of == "ratio" else f"{target} {unit}"


def _is_reached(figure: Figure) -> bool | None:
    return None if figure.share is None else figure.share[1] <= 1


def _verdict(figure: Figure) -> str:
    return {None: "", True: "reached", False: "**not reached**"}[_is_reached(figure)]


def call_panels(found: Growth) -> dict[str, Lines]:
    """Return the p99 of the calls by panel."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for call in found.calls:
        panels.setdefault(call.p99.panel, {})[call.name] = dict(found.medians(call.p99))
    return dict(panels)


def cost_panels(found: Growth) -> dict[str, Lines]:
    """Return everything else by panel."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in [row for row in found.rows() if row in COSTS and row.panel]:
        panels.setdefault(row.panel, {})[row.label] = dict(found.medians(row))
    return dict(panels)
