"""Plots as SVG from a few shapes, without a library. The same figures give the same text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from bench.figures import Figure, percentile

WIDTH: Final = 860
_ROW: Final = 26
_LABELS: Final = 390
_RIGHT: Final = 70
_TOP: Final = 44
_LEAST, _MOST = 0.05, 20.0
_GOOD, _BAD, _GREY = "#2a7f62", "#b3412c", "#8a8f98"
_COLOURS: Final = (_GOOD, _GREY)
_PERCENTS: Final = tuple(range(1, 100))


def bars(figures: Sequence[Figure]) -> str:
    """Plot each figure that has a target: the share of the target that it uses, with the range over the rounds."""
    shown = [(figure, share) for figure in figures if (share := figure.share) is not None]
    height = _TOP + _ROW * len(shown) + 14
    shapes = [text(_LABELS, 18, "share of what is allowed (logarithmic); left of the line is reached", "middle")]
    shapes += [_grid(value, height) for value in (0.1, 0.25, 0.5, 1, 2, 4, 10)]
    for number, (figure, share) in enumerate(shown):
        shapes.append(_bar(figure, share, _TOP + _ROW * number))
    return svg(height, shapes)


def _bar(figure: Figure, share: tuple[float, float, float], top: float) -> str:
    least, middle, most = share
    colour = _GOOD if middle <= 1 else _BAD
    y = top + _ROW / 2
    return "".join(
        (
            text(_LABELS - 10, y + 4, f"{figure.name} ({figure.target})", "end"),
            f'<line x1="{_x(least):.1f}" x2="{_x(most):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{_x(middle):.1f}" cy="{y}" r="5.5" fill="{colour}"/>',
            text(WIDTH - 8, y + 4, f"{middle:.2f}", "end"),
        )
    )


def _x(share: float) -> float:
    where = math.log(min(max(share, _LEAST), _MOST) / _LEAST) / math.log(_MOST / _LEAST)
    return _LABELS + where * (WIDTH - _LABELS - _RIGHT)


def _grid(value: float, height: float) -> str:
    dashes = "" if value == 1 else ' stroke-dasharray="2 4"'
    line = f'<line x1="{_x(value):.1f}" x2="{_x(value):.1f}" y1="36" y2="{height - 10}" stroke="#c3c7cd"{dashes}/>'
    return line + text(_x(value), 32, f"{value:g}", "middle")


def curves(sides: Mapping[str, Sequence[float]], title: str) -> str:
    """Plot milliseconds by percentile on a logarithmic axis, with a line for each side."""
    height, left, bottom = 300, 60, 270
    lines = {name: [percentile(values, percent) for percent in _PERCENTS] for name, values in sides.items()}
    low, high = min(map(min, lines.values())), max(map(max, lines.values()))

    def y(milliseconds: float) -> float:
        return bottom - math.log(milliseconds / low) / math.log(high / low * 1.001) * (bottom - 40)

    shapes = [text(left, 20, f"{title}: milliseconds (logarithmic) by percentile", "start")]
    for value in round_values(low, high):
        shapes.append(
            f'<line x1="{left}" x2="{WIDTH - 130}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e2e4e8"/>'
        )
        shapes.append(text(left - 8, y(value) + 4, f"{value:g}", "end"))
    shapes += [
        text(_across(percent, left), bottom + 18, f"p{percent}", "middle") for percent in (1, 25, 50, 75, 90, 99)
    ]
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
        points = " ".join(f"{_across(p, left):.1f},{y(v):.1f}" for p, v in zip(_PERCENTS, values, strict=True))
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        shapes.append(text(WIDTH - 122, y(values[-1]) + 4, name, "start"))
    return svg(height, shapes)


def _across(percent: float, left: float) -> float:
    return left + (percent - 1) / 98 * (WIDTH - 130 - left)


def round_values(low: float, high: float) -> list[float]:
    """Return the values 1, 2 and 5 of each decade that are between these."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in decades for digit in (1, 2, 5) if low <= (value := digit * 10.0**power) <= high]


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Return a text whose start, middle or end (``anchor``) is there."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(height: float, shapes: Sequence[str]) -> str:
    """Return a picture of :data:`WIDTH`."""
    size = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join((head, '<rect width="100%" height="100%" fill="#ffffff"/>', *shapes, "</svg>", ""))
