"""Texts for people: numbers with nouns, relative times, this program's name."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def count(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 device``, ``2 devices``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def as_called() -> str:
    """Return this program's name as the user can type it. In a virtual environment it may not be on the PATH."""
    called, found = Path(sys.argv[0]), shutil.which("gateway")
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m gateway"
    return "gateway" if found and called.exists() and called.samefile(found) else shlex.quote(sys.argv[0])


def wants_colour() -> bool:
    """Return whether a terminal may be coloured: not with `NO_COLOR` (https://no-color.org) or on a dumb one."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def relative_time(moment: str, now: datetime | None = None) -> str:
    """Return how long ago an instant (RFC 3339) was, or in how long it is, in the largest unit that fits."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    length, unit = next((each for each in _UNITS if abs(seconds) >= each[0]), _UNITS[-1])
    distance = f"{int(abs(seconds) // length)} {unit}"
    return f"in {distance}" if seconds <= -1 else f"{distance} ago"
