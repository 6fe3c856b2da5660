"""Message budget per device, so that one device cannot take the throughput of the others.

The broker sends the gateway the messages of all devices in one stream and waits for acknowledgements. Delaying some
would delay all. What is over the budget is therefore acknowledged at once, and refused.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from gateway.core.clock import Clock

SAVED_SECONDS: Final = 200
"""Unused budget is saved: that of so many seconds, or more."""
SAVED_MESSAGES: Final = 10_000
"""At least so many messages are saved. A device that sends once a minute and was away for a week has a backlog."""

_REMEMBERED: Final = 50_000
_SECOND_MS: Final = 1_000


class MessageBudget:
    """``per_second`` messages on each topic, 0 for no limit, for a bounded number of topics.

    Unused budget is saved: ``saved_seconds`` of it, or ``saved`` messages if those are more. For each topic it keeps
    the time up to which its messages are paid for, at most now and at least that long ago (the generic cell rate
    algorithm, ITU-T I.371): one number to look up and one to write.
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
        """Return whether one more message may arrive on this topic now, and count it if so."""
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
        """Return whether one more message would be accepted on this topic now, without counting it."""
        now = self._clock()
        return max(self._paid.get(topic, 0.0), now - self._saved_ms) + self._each_ms <= now

    def _set_back(self, milliseconds: int) -> None:
        """Follow a clock that is set back, so that it costs no device anything."""
        self._paid = {topic: paid - milliseconds for topic, paid in self._paid.items()}

    def _forget(self) -> None:
        """Forget the half that has used least of its budget. They start again with little more than they have."""
        used_most = sorted(self._paid.items(), key=itemgetter(1), reverse=True)
        self._paid = dict(used_most[: self._remembered // 2])
