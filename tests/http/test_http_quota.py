"""The window of a minute, by a clock that the test turns."""

from gateway.http.quota import WINDOW_MS, Limiter


class Hand:
    """A clock that stands until it is turned (milliseconds)."""

    now = 1_700_000_000_000

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        return self.now


def allowed(limiter: Limiter, caller: str) -> bool:
    """Whether one more request of this caller passes."""
    return limiter.take(caller)[1] is None


def test_a_window_begins_with_the_first_request() -> None:
    """So many within a minute of it, then none until that minute is over."""
    hand = Hand()
    limiter = Limiter(2, hand)
    assert [allowed(limiter, "a") for _ in range(3)] == [True, True, False]
    hand.now += WINDOW_MS - 1
    quota, exceeded = limiter.take("a")
    assert exceeded is not None
    assert (exceeded.seconds, quota.remaining, quota.reset) == (1, 0, 1_700_000_060)
    hand.now += 1
    assert limiter.take("a")[0].remaining == 1


def test_a_refused_request_does_not_count() -> None:
    """Whoever keeps asking is let in again all the same when the minute is over."""
    hand = Hand()
    limiter = Limiter(1, hand)
    for _ in range(600):
        allowed(limiter, "a")
        hand.now += 100
    assert allowed(limiter, "a")


def test_a_clock_that_steps_back_locks_nobody_out() -> None:
    """A window that lies in the future is a new one."""
    hand = Hand()
    limiter = Limiter(1, hand)
    assert allowed(limiter, "a")
    hand.now -= 86_400_000
    assert allowed(limiter, "a")
    assert not allowed(limiter, "a")


def test_only_so_many_callers_are_remembered() -> None:
    """The oldest window is forgotten first; those that are over go by themselves."""
    hand = Hand()
    limiter = Limiter(1, hand, most_callers=3)
    for caller in "abcd":
        hand.now += 1
        assert allowed(limiter, caller)
    assert not allowed(limiter, "d")
    assert allowed(limiter, "a")
    assert len(limiter._windows) == 3  # noqa: SLF001 - the bound on memory shows nowhere else
    hand.now += WINDOW_MS
    assert allowed(limiter, "e")
    assert len(limiter._windows) == 1  # noqa: SLF001 - as above
