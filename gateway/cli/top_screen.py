"""Screen of ``gateway top``. Text from devices is text: never markup, never a control character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gateway.cli import fleet_view, output, presence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import ConsoleDimensions, RenderableType

    from gateway.cli.api import Json
    from gateway.cli.fleet_view import Glance

KEYS: Final = (
    "a all  n online  o offline  v never seen  b low battery  s storage full  r resets  space next  p previous  q quit"
)
SHORT_KEYS: Final = "list: a n o v b s r   page: space p   quit: q   more: gateway top --help"
_SHORT: Final = {"never seen": "new", "low battery": "low", "storage full": "full", "pending resets": "resets"}
_WIDE: Final = 104
"""From this width on all names are written in full."""
_TONES: Final = {
    "online_count": "green",
    "low_battery_count": "yellow",
    "storage_full_count": "yellow",
    "pending_reset_count": "magenta",
}
_LEAST_WIDTH: Final = {"STORAGE": 66, "SIGNAL": 78, "NAME": 96, "ID": 128, "DOING": 144, "BOUND TO": 164}
"""Minimum width of the terminal for a column; a column that is not listed is always there."""
_LOW_PERCENT: Final = 20
_AROUND: Final = 6
"""Lines that are neither devices nor events."""


@dataclass(frozen=True)
class ShownDevice:
    """What there is to draw."""

    project: str
    fleet: Glance
    events: Sequence[Json]
    only: str
    offset: int
    trouble: str | None


def rows_for(height: int) -> tuple[int, int]:
    """Return how many devices and how many events fit into so many lines."""
    events = max(2, min(fleet_view.EVENTS, height // 4))
    return max(3, height - events - _AROUND), events


def drawn(shown: ShownDevice, size: ConsoleDimensions) -> RenderableType:
    """Return all of it, for a terminal of this size."""
    rows, events = rows_for(size.height)
    devices = [presence.as_known(each, shown.fleet.doubt) for each in shown.fleet.devices[:rows]]
    return Group(
        _heading(shown),
        _figures(shown.fleet, shown.only, size.width),
        Text(),
        _devices(devices, size.width),
        *(Text() for _ in range(rows - len(devices) + 1)),
        *_events(list(shown.events)[-events:], events),
        _line(KEYS if size.width >= _WIDE else SHORT_KEYS, "dim"),
    )


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _heading(shown: ShownDevice) -> Text:
    first, last = shown.offset + 1, shown.offset + len(shown.fleet.devices)
    place = f"{first} to {last}{' and more' if shown.fleet.more else ''}" if shown.fleet.devices else "none"
    state = _state(shown)
    parts = [(output.cell(shown.project), "bold"), (f"{shown.only}: {place}", "dim"), state]
    return _line("  ").join(_line(text, style) for text, style in parts)


def _state(shown: ShownDevice) -> tuple[str, str]:
    if shown.trouble is not None:
        return f"not live: {output.cell(shown.trouble)}", "bold yellow"
    if shown.fleet.doubt is not None:
        return f"presence unknown: {shown.fleet.doubt}", "bold yellow"
    return "live", "green"


def _figures(fleet: Glance, only: str, width: int) -> Text:
    parts = []
    for (name, label), narrowed in zip(fleet_view.FIGURES.items(), fleet_view.ONLY, strict=True):
        tone = _TONES.get(name, "") if fleet.stats[name] else ""
        word = label if width >= _WIDE else _SHORT.get(label, label)
        parts.append(
            _line(
                f"{fleet_view.counted(fleet.stats, name, fleet.doubt)} {word}",
                f"bold {tone}" + (" reverse" if narrowed == only else ""),
            )
        )
    return _line("   ").join(parts)


def _devices(devices: Sequence[Json], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    shown = [name for name in fleet_view.COLUMNS if _LEAST_WIDTH.get(name, 0) <= width]
    for name in shown:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for device in devices:
        row = dict(zip(fleet_view.COLUMNS, fleet_view.cells(device), strict=True))
        table.add_row(*(Text(output.cell(row[name]), style=_tone(name, device)) for name in shown))
    return table


def _tone(column: str, device: Json) -> str:
    battery = device["battery_percent"]
    if column == "CONNECTION":
        return "green" if device["connection"] == "online" else "dim"
    return "yellow" if column == "BATTERY" and battery is not None and battery <= _LOW_PERCENT else ""


def _events(events: Sequence[Json], lines: int) -> list[Text]:
    return [_line(fleet_view.told(each), "dim") for each in events] + [Text()] * (lines - len(events))
