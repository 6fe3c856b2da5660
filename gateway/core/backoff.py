"""Exponential backoff with jitter, so that a fleet of clients does not reconnect all at once."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pauses:
    """The shortest and the longest pause, in seconds, and how a client gets back to the shortest.

    A connection must last ``steady_seconds`` for that. ``compare_seconds``: the time between two comparisons with the
    broker over one connection.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    steady_seconds: float = 10.0
    compare_seconds: float = math.inf


class Backoff:
    """The pauses of one client. A successful connect alone does not reset them.

    A client that is cut off right after each connect must slow down too.
    """

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._next = pauses.first_seconds

    def reset(self) -> None:
        """Start with the shortest pause again: what failed has succeeded."""
        self._next = self._pauses.first_seconds

    def pause(self, lasted_seconds: float = -1.0) -> float:
        """Return the next pause in seconds. ``lasted_seconds``: how long the connection lasted; negative: it failed."""
        if lasted_seconds >= self._pauses.steady_seconds:
            self._next = self._pauses.first_seconds
        longest, self._next = self._next, min(2 * self._next, self._pauses.longest_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
