"""How many requests a caller may make: so many in each minute of the clock, for each key and each device token.

Counted in memory by ``throttled-py``; how many callers it remembers is bounded, those not seen for longest go first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from throttled import MemoryStore, RateLimiterType, Throttled, rate_limiter

from gateway.core.clock import Clock
from gateway.http.errors import RateLimitExceededError

WINDOW_SECONDS: Final = 60
MOST_CALLERS: Final = 100_000
NO_LIMIT: Final = 2**31 - 1
_SECOND_MS: Final = 1_000


@dataclass(frozen=True)
class Quota:
    """What the ``X-RateLimit-…`` headers say; ``reset`` is in Unix seconds."""

    limit: int
    remaining: int
    reset: int


class RateLimiter:
    """Counts requests per caller.

    A limit of 0 is none: the headers then say ``NO_LIMIT``, so that a client which stops at "0 remaining" never does.
    """

    def __init__(self, per_minute: int, clock: Clock, *, most_callers: int = MOST_CALLERS) -> None:
        self.limit = per_minute or NO_LIMIT
        self._clock = clock
        self._counts = Throttled(
            using=RateLimiterType.FIXED_WINDOW.value,
            quota=rate_limiter.per_min(self.limit),
            store=MemoryStore(options={"MAX_SIZE": most_callers}),
        )

    def untouched(self) -> Quota:
        """What a caller who is not known has: nothing counted."""
        now = self._clock() // _SECOND_MS
        return Quota(self.limit, self.limit, now - now % WINDOW_SECONDS + WINDOW_SECONDS)

    def take(self, caller: str) -> tuple[Quota, RateLimitExceededError | None]:
        """Count one request: what is left, and the refusal when it is one too many."""
        taken = self._counts.limit(caller)
        seconds = max(1, math.ceil(taken.state.reset_after))
        quota = Quota(self.limit, int(taken.state.remaining), self._clock() // _SECOND_MS + seconds)
        return quota, RateLimitExceededError(self.limit, seconds) if taken.limited else None
