"""How many requests a caller may make: a window of a minute for each key and each device token, in memory, bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from gateway.clock import Clock
from gateway.http.errors import RateLimitExceededError

WINDOW_MS: Final = 60_000
MOST_CALLERS: Final = 100_000
NO_LIMIT: Final = 2**31 - 1
_SECOND_MS: Final = 1_000


@dataclass(frozen=True)
class Quota:
    """What the ``X-RateLimit-…`` headers say; ``reset`` is in Unix seconds."""

    limit: int
    remaining: int
    reset: int


@dataclass
class _Window:
    start: int
    used: int = 0


class Limiter:
    """Counts requests per caller in windows of a minute that begin with a caller's first request.

    A limit of 0 is none: the headers then say ``NO_LIMIT``, so that a client which stops at "0 remaining" never does.
    At most ``most_callers`` are remembered; the one whose window is oldest is forgotten first.
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_callers: int = MOST_CALLERS) -> None:
        self.limit = per_minute or NO_LIMIT
        self._clock = clock
        self._most_callers = most_callers
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # by start, the oldest first

    def untouched(self) -> Quota:
        """What a caller who is not known has: nothing counted."""
        return self._quota(_Window(self._clock()))

    def take(self, caller: str) -> tuple[Quota, RateLimitExceededError | None]:
        """Count one request: what is left, and the refusal when it is one too many."""
        now = self._clock()
        window = self._window(caller, now)
        if window.used >= self.limit:
            seconds = max(1, -(-(window.start + WINDOW_MS - now) // _SECOND_MS))
            return self._quota(window), RateLimitExceededError(self.limit, seconds)
        window.used += 1
        return self._quota(window), None

    def _window(self, caller: str, now: int) -> _Window:
        window = self._windows.get(caller)
        if window is None or not window.start <= now < window.start + WINDOW_MS:  # the clock may also step back
            window = self._windows[caller] = _Window(now)
            self._windows.move_to_end(caller)
            self._forget(now)
        return window

    def _forget(self, now: int) -> None:
        oldest = next(iter(self._windows.values()))
        while oldest.start + WINDOW_MS <= now or len(self._windows) > self._most_callers:
            self._windows.popitem(last=False)
            oldest = next(iter(self._windows.values()))

    def _quota(self, window: _Window) -> Quota:
        reset = -(-(window.start + WINDOW_MS) // _SECOND_MS)
        return Quota(self.limit, self.limit - window.used, reset)
