"""Pauses between tries: they double, with jitter, so that a fleet of clients does not come back all at once."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pauses:
    """The first and the longest pause, and how long a connection must last to start again from the first; seconds.

    ``compare_seconds`` lie between two comparisons with the broker over one connection.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    steady_seconds: float = 10.0
    compare_seconds: float = math.inf


class Backoff:
    """The pauses of one client. A success alone resets nothing: who is cut right after each must slow down too."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._next = pauses.first_seconds

    def pause(self, lasted_seconds: float) -> float:
        """How long to wait, in seconds, after a connection that lasted this long (less than 0: that failed)."""
        if lasted_seconds >= self._pauses.steady_seconds:
            self._next = self._pauses.first_seconds
        longest, self._next = self._next, min(2 * self._next, self._pauses.longest_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
