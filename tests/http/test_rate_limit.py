"""So many requests in each minute, by a clock that the test turns."""

import pytest

from gateway.http.rate_limit import RateLimiter
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """One that stands at a full minute."""
    return ManualClock()


def allowed(limiter: RateLimiter, caller: str) -> bool:
    """Whether one more request of this caller passes."""
    return limiter.take(caller)[1] is None


def test_a_bounded_number_of_requests_a_minute_is_served(clock: ManualClock) -> None:
    """Then none until the next one; the headers and ``Retry-After`` say when that is. Each caller for itself."""
    limiter = RateLimiter(2, clock)
    assert [allowed(limiter, "a") for _ in range(3)] == [True, True, False]
    assert allowed(limiter, "b")
    clock.now += 59_000
    quota, exceeded = limiter.take("a")
    assert exceeded is not None
    assert (exceeded.seconds, quota.remaining, quota.reset) == (1, 0, 1_700_000_100)
    clock.now += 1_000
    assert limiter.take("a")[0].remaining == 1


def test_a_persistent_caller_is_served_again_later(clock: ManualClock) -> None:
    """Refused requests do not make the wait longer."""
    limiter = RateLimiter(1, clock)
    for _ in range(600):
        allowed(limiter, "a")
        clock.now += 100
    assert allowed(limiter, "a")


def test_a_clock_that_steps_back_blocks_no_caller(clock: ManualClock) -> None:
    """It is another minute, with a separate count."""
    limiter = RateLimiter(1, clock)
    assert allowed(limiter, "a")
    clock.now -= 86_400_000
    assert allowed(limiter, "a")
    assert not allowed(limiter, "a")


def test_remembered_callers_are_bounded(clock: ManualClock) -> None:
    """The one not seen for longest is forgotten first."""
    limiter = RateLimiter(1, clock, most_callers=3)
    for caller in "abcd":
        assert allowed(limiter, caller)
    assert not allowed(limiter, "d")
    assert allowed(limiter, "a")


def test_without_a_limit_no_request_is_refused(clock: ManualClock) -> None:
    """0 limits no caller, and by the headers no caller has to wait."""
    limiter = RateLimiter(0, clock)
    assert all(allowed(limiter, "a") for _ in range(1_000))
    assert limiter.untouched().remaining == limiter.limit == 2**31 - 1
