"""Log lines that are written at most once a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

_TOLD_EVERY_SECONDS: Final = 60.0


class Paced:
    """Calls ``say`` at most once a minute, with the number of times that it was triggered since."""

    def __init__(self, say: Callable[[int], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._count = 0
        self._silent_until = -math.inf

    def __call__(self) -> None:
        """Count one occurrence."""
        self._count += 1
        now = self._now()
        if now >= self._silent_until:
            self._say(self._count)
            self._count, self._silent_until = 0, now + _TOLD_EVERY_SECONDS
