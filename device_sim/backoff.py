"""Reconnect backoff: delays with jitter that double. A connection that was cut soon does not reset the count."""

import random

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0
REFUSED_LONGEST_SECONDS = 300.0
STABLE_SECONDS = 10.0


class Backoff:
    """Delays in seconds; `rng` spreads the reconnects of a fleet that lost its broker at one moment.

    A link that was up for `stable` seconds resets the count. A link that was cut sooner counts as a failure.
    """

    def __init__(
        self, rng: random.Random, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS,
        stable: float = STABLE_SECONDS, refused_longest: float = REFUSED_LONGEST_SECONDS,
    ) -> None:  # fmt: skip
        self._rng = rng
        self._first = first
        self._longest = longest
        self._stable = stable
        self._refused_longest = refused_longest
        self.failures = 0
        self.refusals = 0

    def after_loss(self, *, held: float) -> float:
        """Return the delay after a link that was up for `held` seconds (0 if it never came up)."""
        if held >= self._stable:
            self.failures = 0
        self.refusals = 0
        self.failures += 1
        return self._delay(self.failures, self._longest)

    def after_refusal(self) -> float:
        """Return the delay after the server refused the token. It is longer, but the device always tries again."""
        self.refusals += 1
        self.failures += 1
        return 2 * self._delay(self.failures, max(self._longest, self._refused_longest) / 2)

    def begin_link(self) -> None:
        """Count the refusals of a new link from zero: after a refresh or a power cut it may be refused again."""
        self.refusals = 0

    def _delay(self, attempt: int, longest: float) -> float:
        """Return a random delay of at least half of the doubled delay, so that it is spread and never zero."""
        ceiling = min(longest, self._first * 2.0 ** min(attempt - 1, 32))
        return self._rng.uniform(ceiling / 2, ceiling)
