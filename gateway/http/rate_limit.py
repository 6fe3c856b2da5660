"""Rate limit for API keys and device tokens: a number of requests in each minute of the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.core.clock import MINUTE_MS, SECOND_MS, Clock
from gateway.core.limits import FixedWindow, Window
from gateway.http.errors import RateLimitExceededError

MOST_CALLERS: Final = 100_000
NO_LIMIT: Final = 2**31 - 1


@dataclass(frozen=True)
class Quota:
    """Values of the ``X-RateLimit-…`` headers; ``reset`` is in Unix seconds."""

    limit: int
    remaining: int
    reset: int


class RateLimiter:
    """Counts requests per caller.

    With a limit of 0 nothing is refused. The headers then have ``NO_LIMIT``, since a client may stop at "0 remaining".
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_callers: int = MOST_CALLERS) -> None:
        self.limit = per_minute or NO_LIMIT
        self._clock = clock
        self._requests = FixedWindow[str](self.limit, MINUTE_MS, clock, most_keys=most_callers)

    def untouched(self) -> Quota:
        """Return the quota of an unknown caller: nothing counted."""
        return quota_of(self.limit, self._requests.left(""))

    def take(self, caller: str) -> tuple[Quota, RateLimitExceededError | None]:
        """Count one request. Return what is left, and the refusal when it is one too many."""
        admitted = self._requests.take(caller)
        quota = quota_of(self.limit, self._requests.left(caller))
        return quota, None if admitted else RateLimitExceededError(self.limit, seconds_until(quota, self._clock))


def quota_of(limit: int, left: Window) -> Quota:
    """Return the headers' values for what a window has left."""
    return Quota(limit, left.remaining, left.ends_at // SECOND_MS)


def seconds_until(quota: Quota, clock: Clock) -> int:
    """Return the seconds until the quota's window ends, at least 1: the value of ``Retry-After``."""
    return max(1, quota.reset - clock() // SECOND_MS)
