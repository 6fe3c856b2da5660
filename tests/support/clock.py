"""Clocks that a test sets."""

from gateway.core.clock import system_clock

FULL_MINUTE_MS = 1_700_000_040_000


class ManualClock:
    """A clock that stands until the test moves it, in milliseconds since the epoch."""

    def __init__(self, now: int = FULL_MINUTE_MS) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the milliseconds since the epoch."""
        return self.now


class ManualTimer:
    """A monotonic clock that stands until the test moves it, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


class ShiftedClock:
    """The machine's clock plus ``ahead_ms``, which a test changes."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        """Return the milliseconds since the epoch."""
        return system_clock() + self.ahead_ms
