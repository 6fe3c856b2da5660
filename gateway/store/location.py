"""Location of a registry, and the engine for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gateway.store.sqlite.engine import SqliteEngine

if TYPE_CHECKING:
    from gateway.store.engine import Engine

Location: TypeAlias = Path
"""The data directory."""


def engine_of(location: Location) -> Engine:
    """Return the engine of the registry at this location."""
    return SqliteEngine(location)
