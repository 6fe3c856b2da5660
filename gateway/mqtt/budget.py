"""How much each device may say, so that one that runs wild takes nothing from the others.

The broker hands the gateway the messages of all devices in one stream and waits for their acknowledgement: to let some
wait would be to let all wait. So what is over the budget is answered for at once, and refused.
"""

from __future__ import annotations

from typing import Final

from gateway.clock import Clock

SAVED_SECONDS: Final = 200
"""What a device does not use of its budget it may use later, up to this many seconds of it: for its backlog, say."""

_REMEMBERED: Final = 50_000
_SECOND_MS: Final = 1_000


class Budget:
    """``per_second`` messages on each topic, 0 for no limit; remembers a bounded number of topics."""

    def __init__(self, per_second: int, clock: Clock, *, remembered: int = _REMEMBERED) -> None:
        self._per_ms = per_second / _SECOND_MS
        self._most = float(per_second * SAVED_SECONDS)
        self._clock = clock
        self._remembered = remembered
        self._left: dict[str, tuple[float, int]] = {}

    def admits(self, topic: str) -> bool:
        """Whether one more may come on this topic now; if so, it is counted."""
        if not self._per_ms:
            return True
        now = self._clock()
        left, at = self._left.pop(topic, (self._most, now))
        left = min(self._most, left + max(0, now - at) * self._per_ms)
        admitted = left >= 1
        self._left[topic] = (left - admitted, now)
        if len(self._left) > self._remembered:
            del self._left[next(iter(self._left))]  # not heard for longest
        return admitted
