"""Words for people: a number with its noun, and this program's name as it can be typed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def count(number: int, thing: str) -> str:
    """So many of a thing: ``1 device``, ``2 devices``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def as_called() -> str:
    """Return this program as it can be typed again: in a virtual environment it may not be on the PATH."""
    called, found = Path(sys.argv[0]), shutil.which("gateway")
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m gateway"
    return "gateway" if found and called.exists() and called.samefile(found) else shlex.quote(sys.argv[0])
