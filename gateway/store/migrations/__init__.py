"""Schema steps of the registry, each applied once, in the order of their numbers.

A step that was released is never edited, renamed or moved before another: registries remember it by its name. A later
change of the schema is a new step at the end of the newest file. The order of the imports below is the order of the
steps. ``docs/store.md`` describes the tables. Times are milliseconds since the epoch, documents are JSON text.
"""

from gateway.store.migrations import (
    steps_001_to_010,
    steps_011_to_020,
    steps_021_to_030,
    steps_031_to_040,
    steps_041_to_050,
    steps_051_to_060,
)
from gateway.store.migrations.step import STEPS

__all__ = [
    "STEPS",
    "steps_001_to_010",
    "steps_011_to_020",
    "steps_021_to_030",
    "steps_031_to_040",
    "steps_041_to_050",
    "steps_051_to_060",
]
