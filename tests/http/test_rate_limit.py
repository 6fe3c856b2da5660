"""So many requests in each minute, by a clock that the test turns."""

import pytest

from gateway.http.rate_limit import RateLimiter


class ManualClock:
    """A clock that stands until it is turned (milliseconds)."""

    now = 1_700_000_040_000  # a full minute

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        return self.now


@pytest.fixture
def hand() -> ManualClock:
    """One that stands at a full minute."""
    return ManualClock()


def allowed(limiter: RateLimiter, caller: str) -> bool:
    """Whether one more request of this caller passes."""
    return limiter.take(caller)[1] is None


def test_a_bounded_number_of_requests_a_minute_is_served(hand: ManualClock) -> None:
    """Then none until the next one; the headers and ``Retry-After`` say when that is. Each caller for itself."""
    limiter = RateLimiter(2, hand)
    assert [allowed(limiter, "a") for _ in range(3)] == [True, True, False]
    assert allowed(limiter, "b")
    hand.now += 59_000
    quota, exceeded = limiter.take("a")
    assert exceeded is not None
    assert (exceeded.seconds, quota.remaining, quota.reset) == (1, 0, 1_700_000_100)
    hand.now += 1_000
    assert limiter.take("a")[0].remaining == 1


def test_a_persistent_caller_is_served_again_later(hand: ManualClock) -> None:
    """Refused requests do not make the wait longer."""
    limiter = RateLimiter(1, hand)
    for _ in range(600):
        allowed(limiter, "a")
        hand.now += 100
    assert allowed(limiter, "a")


def test_a_clock_that_steps_back_blocks_no_caller(hand: ManualClock) -> None:
    """It is another minute, with a separate count."""
    limiter = RateLimiter(1, hand)
    assert allowed(limiter, "a")
    hand.now -= 86_400_000
    assert allowed(limiter, "a")
    assert not allowed(limiter, "a")


def test_remembered_callers_are_bounded(hand: ManualClock) -> None:
    """The one not seen for longest is forgotten first."""
    limiter = RateLimiter(1, hand, most_callers=3)
    for caller in "abcd":
        assert allowed(limiter, caller)
    assert not allowed(limiter, "d")
    assert allowed(limiter, "a")


def test_without_a_limit_no_request_is_refused(hand: ManualClock) -> None:
    """0 limits no caller, and by the headers no caller has to wait."""
    limiter = RateLimiter(0, hand)
    assert all(allowed(limiter, "a") for _ in range(1_000))
    assert limiter.untouched().remaining == limiter.limit == 2**31 - 1
