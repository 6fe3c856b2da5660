"""How much each device may say, so that one that runs wild takes nothing from the others.

The broker hands the gateway the messages of all devices in one stream and waits for their acknowledgement: to let some
wait would be to let all wait. So what is over the budget is answered for at once, and refused.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from gateway.core.clock import Clock

SAVED_SECONDS: Final = 200
"""What a device does not use of its budget it may use later: so many seconds of it, or more."""
SAVED_MESSAGES: Final = 10_000
"""So many at least: a device that says one thing a minute, and was away for a week, has a backlog of those."""

_REMEMBERED: Final = 50_000
_SECOND_MS: Final = 1_000


class MessageBudget:
    """``per_second`` messages on each topic, 0 for no limit; remembers a bounded number of topics.

    What is not used may be used later: ``saved_seconds`` of it, or ``saved`` messages if those are more.

    Of each topic it knows the instant up to which what came is paid for, at most now and at least
    that long ago (the generic cell rate algorithm, ITU-T I.371): one number to look up and one to write.
    """

    def __init__(
        self,
        per_second: int,
        clock: Clock,
        *,
        remembered: int = _REMEMBERED,
        saved_seconds: int = SAVED_SECONDS,
        saved: int = 0,
    ) -> None:
        self._each_ms = _SECOND_MS / per_second if per_second else 0.0
        self._saved_ms = max(saved_seconds * _SECOND_MS, saved * self._each_ms)
        self._clock = clock
        self._remembered = remembered
        self._paid: dict[str, float] = {}
        self._now = clock()

    def admits(self, topic: str) -> bool:
        """Whether one more may come on this topic now; if so, it is counted."""
        now = self._clock()
        if now < self._now:
            self._set_back(self._now - now)
        self._now = now
        paid = max(self._paid.get(topic, 0.0), now - self._saved_ms) + self._each_ms
        if paid > now:
            return False
        self._paid[topic] = paid
        if len(self._paid) > self._remembered:
            self._forget()
        return True

    def has_room(self, topic: str) -> bool:
        """Whether one more would be taken on this topic now; it is not counted."""
        now = self._clock()
        return max(self._paid.get(topic, 0.0), now - self._saved_ms) + self._each_ms <= now

    def _set_back(self, milliseconds: int) -> None:
        """A clock that is set back costs nobody anything."""
        self._paid = {topic: paid - milliseconds for topic, paid in self._paid.items()}

    def _forget(self) -> None:
        """Those that have used least of their budget, half of all: they start anew with little more than they have."""
        used_most = sorted(self._paid.items(), key=itemgetter(1), reverse=True)
        self._paid = dict(used_most[: self._remembered // 2])
