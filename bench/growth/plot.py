"""Plots of costs by the size of the registry, on logarithmic axes: a panel for rows that belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from bench.plots import WIDTH, svg, text

Lines = Mapping[str, Mapping[int, float]]
"""Values by size, by the name of the line."""
_LEFT, _RIGHT = 64, 540
_LABELS: Final = 556
_TITLE, _PLOT, _AXIS = 24, 180, 34
_GAP: Final = 14
_LINE_HEIGHT: Final = 15
_SPAN: Final = 10.0
"""Least factor from the bottom to the top: what grows little looks flat."""
_MARGIN: Final = 1.15
_ZERO: Final = 0.1
"""Place of a value that is 0, as a share of the least one that is not."""
_FEW_DECADES: Final = 2.2
_GUIDES: Final = "#b9bec6"
_GRID: Final = "#e2e4e8"
_COLOURS: Final = ("#2a7f62", "#3b6fb5", "#b3412c", "#8a5fb0", "#b8860b", "#4d9aa8", "#c2568f", "#6b7280", "#7a5230")


def growth(panels: Mapping[str, Lines], sizes: Sequence[int]) -> str:
    """Return a picture with the panels below each other."""
    shapes = [text(WIDTH - 8, 14, "dashed: what grows with the number of devices", "end")]
    top = 0.0
    for title, lines in panels.items():
        panel = _Panel(title, lines, sizes, top)
        shapes += panel.shapes()
        top = panel.bottom
    return svg(top, shapes)


class _Panel:
    """A panel whose upper edge is at ``top``."""

    def __init__(self, title: str, lines: Lines, sizes: Sequence[int], top: float) -> None:
        self._title, self._lines, self._sizes = title, lines, sizes
        self._top = top + _TITLE
        self._height = max(_PLOT, _LINE_HEIGHT * len(lines))
        self.bottom = self._top + self._height + _AXIS + _GAP
        self._least = _ZERO * min((value for line in lines.values() for value in line.values() if value), default=1.0)
        values = [max(value, self._least) for line in lines.values() for value in line.values()]
        middle = math.sqrt(min(values) * max(values))
        half = math.sqrt(max(_SPAN, max(values) / min(values) * _MARGIN**2))
        self._low, self._high = middle / half, middle * half

    def shapes(self) -> list[str]:
        names = self._label_places()
        shapes = [f'<g font-weight="bold">{text(_LEFT, self._top - 8, self._title, "start")}</g>', *self._axes()]
        shapes.append(self._guide())
        for colour, (name, line) in zip(_COLOURS * 9, self._lines.items(), strict=False):
            points = [(self._x(size), self._y(value)) for size, value in line.items()]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
            shapes.append(
                f'<line x1="{_RIGHT + 5}" y1="{points[-1][1]:.1f}" x2="{_LABELS - 4}" y2="{names[name] - 4:.1f}" '
                f'stroke="{colour}"/>'
            )
            shapes.append(f'<g fill="{colour}">{text(_LABELS, names[name], name, "start")}</g>')
        return shapes

    def _axes(self) -> list[str]:
        end = self._top + self._height
        shapes = []
        for value in self._ticks():
            y = self._y(value)
            shapes.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
            shapes.append(text(_LEFT - 8, y + 4, f"{value:,.12g}", "end"))
        for size in self._sizes:
            x = self._x(size)
            shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self._top}" y2="{end}" stroke="{_GRID}"/>')
            shapes.append(text(x, end + 18, f"{size:,}", "middle"))
        return shapes

    def _guide(self) -> str:
        """Return a dashed line that grows with the number of devices, from the lower left corner."""
        first, last = self._sizes[0], self._sizes[-1]
        reached = min(last / first, self._high / self._low)
        points = f'x1="{_LEFT}" y1="{self._y(self._low):.1f}" x2="{self._x(first * reached):.1f}" '
        ends = f'y2="{self._y(self._low * reached):.1f}"'
        return f'<line {points}{ends} stroke="{_GUIDES}" stroke-dasharray="3 4"/>'

    def _ticks(self) -> list[float]:
        decades = math.log10(self._high / self._low)
        digits = (1, 2, 5) if decades <= _FEW_DECADES else (1,)
        powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in digits]
        return [value for value in found if self._low <= value <= self._high]

    def _label_places(self) -> dict[str, float]:
        """Return the height of each name beside the end of its line, with room between them."""
        by_end = sorted(self._lines, key=lambda name: self._y(list(self._lines[name].values())[-1]))
        places: dict[str, float] = {}
        free = self._top + 8.0
        for number, name in enumerate(by_end):
            after = _LINE_HEIGHT * (len(by_end) - number - 1)
            wanted = self._y(list(self._lines[name].values())[-1]) + 4
            places[name] = max(free, min(wanted, self._top + self._height + 4 - after))
            free = places[name] + _LINE_HEIGHT
        return places

    def _x(self, size: float) -> float:
        if self._sizes[0] == self._sizes[-1]:
            return (_LEFT + _RIGHT) / 2
        return _LEFT + math.log(size / self._sizes[0]) / math.log(self._sizes[-1] / self._sizes[0]) * (_RIGHT - _LEFT)

    def _y(self, value: float) -> float:
        share = math.log(max(value, self._least) / self._low) / math.log(self._high / self._low)
        return self._top + self._height * (1 - share)
