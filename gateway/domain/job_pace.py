"""Pace of a job: how many of its targets have earned their turn (contract, section 8).

The state is three numbers in the job's row, so a restart or another gateway continues it. What is earned is counted in
units of which a turn costs :data:`TURN`, so whole numbers hold every rate exactly.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.core.clock import MINUTE_MS, SECOND_MS

TURN: Final = MINUTE_MS
"""Cost of one turn: a rate of one per minute earns one unit in each millisecond."""
BATCH: Final = 50
"""Turns that can be saved up, and so the most that are taken at once."""
GAP_MS: Final = SECOND_MS
"""A longer time without a look at the job earns nothing more: the gateway was down, or was held up."""
_MOST_DOUBLINGS: Final = 17
"""From 1 to more than the highest rate."""


class Pace(NamedTuple):
    """The pace that was asked for. ``ramp_from`` and ``double_ms`` are None without a ramp."""

    per_minute: int
    ramp_from: int | None = None
    double_ms: int | None = None

    def rate(self, active_ms: int) -> int:
        """Return the turns per minute after the job has run for so long."""
        if self.ramp_from is None or self.double_ms is None:
            return self.per_minute
        doublings = min(active_ms // self.double_ms, _MOST_DOUBLINGS)
        return min(self.per_minute, self.ramp_from << doublings)

    def earned(self, active_ms: int, elapsed_ms: int) -> int:
        """Return what ``elapsed_ms`` earn from ``active_ms`` on, each part at the rate of its step of the ramp."""
        units, end = 0, active_ms + elapsed_ms
        while active_ms < end:
            rate, step_end = self.rate(active_ms), end
            if self.double_ms is not None and rate < self.per_minute:
                step_end = min(end, (active_ms // self.double_ms + 1) * self.double_ms)
            units += rate * (step_end - active_ms)
            active_ms = step_end
        return units


class Progress(NamedTuple):
    """How far the pace has come.

    ``paced_at`` is when this was computed, in milliseconds since the epoch. ``active_ms`` is how long the job has run
    without pauses and outages; the ramp goes by it. ``credit`` is what was earned and not used.
    """

    paced_at: int
    active_ms: int
    credit: int

    @property
    def turns(self) -> int:
        """Return how many targets have their turn."""
        return self.credit // TURN


def begin(now: int) -> Progress:
    """Return the progress of a job that starts: its first target has its turn at once."""
    return Progress(now, 0, TURN)


def resume(progress: Progress, now: int) -> Progress:
    """Return the progress after a pause. No turn is made up for."""
    return progress._replace(paced_at=now)


def advance(pace: Pace, progress: Progress, now: int) -> Progress:
    """Return the progress at ``now``. What a stall has missed is not made up for; a clock set back earns nothing."""
    turn_ms = -(-TURN // pace.rate(progress.active_ms))
    elapsed = min(max(0, now - progress.paced_at), turn_ms + GAP_MS)
    credit = progress.credit + pace.earned(progress.active_ms, elapsed)
    return Progress(now, progress.active_ms + elapsed, min(credit, BATCH * TURN))
