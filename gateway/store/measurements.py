"""Measurements of transactions for the metrics, reported after the commit, never for what was undone.

Labels come from our own constants or from closed lists, never from a device: their number is bounded.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ACCESS: Final = "access"
"""A device whose access was synced at the broker, by what its access is."""
CERTIFICATE: Final = "certificate"
"""A certificate of reset, by the outcome of its reset; ``addendum`` for a later word of the device."""
COMMIT: Final = "commit"
"""Seconds that one transaction took, from BEGIN to the end of COMMIT."""
CONFLICT: Final = "conflict"
"""A transaction that met one of another gateway and was run again, by how they met."""
DELIVERY: Final = "delivery"
"""A try of a webhook, by its outcome."""
EVENT: Final = "event"
"""An event, by its type."""
EVENT_SUPPRESSED: Final = "event_suppressed"
"""An event that was suppressed since its device has caused too many, by its type."""
JOB_TARGET: Final = "job_target"
"""A target of a job that has its end, by its outcome."""
LEASE: Final = "lease"
"""A lease that this gateway took, by its kind."""
HEARTBEAT: Final = "heartbeat"
"""A received heartbeat, by what was done with it."""
REFUSAL: Final = "refusal"
"""A message that was refused, by the code of its refusal."""
RESET: Final = "reset"
"""Seconds that a stage of a factory reset took, by stage."""


class Measure(NamedTuple):
    """One thing that happened, or that took ``value`` seconds."""

    name: str
    label: str
    value: float = 1.0
