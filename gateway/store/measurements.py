"""What a transaction did, in figures for whoever watches the gateway; told after the commit, never of what was undone.

Labels come from our own constants or from closed lists, never from a device: their number is bounded.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ACCESS: Final = "access"
"""A device whose right to connect was brought in step at the broker, by what that right is."""
COMMIT: Final = "commit"
"""Seconds that one transaction took, from BEGIN to the end of COMMIT."""
DELIVERY: Final = "delivery"
"""A try of a webhook, by its outcome."""
EVENT: Final = "event"
"""An event, by its type."""
EVENT_SUPPRESSED: Final = "event_suppressed"
"""An event that was not written since its device has caused too many, by its type."""
HEARTBEAT: Final = "heartbeat"
"""A heartbeat that was taken, by what was done with it."""
REFUSAL: Final = "refusal"
"""A message that was refused, by the code of its refusal."""
RESET: Final = "reset"
"""Seconds that a stage of a factory reset took, by stage."""


class Measure(NamedTuple):
    """One thing that happened, or that took ``value`` seconds."""

    name: str
    label: str
    value: float = 1.0
