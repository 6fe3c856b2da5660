"""The budget of messages per device: saved up, used up, and remembered for a bounded number of topics."""

from gateway.mqtt.budget import SAVED_SECONDS, Budget

NOON = 1_794_312_000_000
ONE, OTHER = "devices/dev_A/heartbeat", "devices/dev_B/heartbeat"


class Clock:
    """A clock that the test moves."""

    now = NOON

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        return self.now


def admitted(budget: Budget, topic: str, tries: int) -> int:
    """How many of so many messages at once are taken."""
    return sum(budget.admits(topic) for _ in range(tries))


def test_a_backlog_is_taken_and_a_flood_is_not() -> None:
    """What was saved up is there at once, then so many a second; the others have their own."""
    clock = Clock()
    budget = Budget(5, clock)
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS
    assert admitted(budget, OTHER, 10) == 10
    clock.now += 1_000
    assert admitted(budget, ONE, 2_000) == 5
    clock.now += 3_600_000
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS


def test_a_clock_that_is_set_back_costs_nothing() -> None:
    """Nothing is won by it and nothing lost."""
    clock = Clock()
    budget = Budget(5, clock)
    admitted(budget, ONE, 5 * SAVED_SECONDS - 3)
    clock.now -= 3_600_000
    assert admitted(budget, ONE, 10) == 3
    clock.now += 1_000
    assert admitted(budget, ONE, 10) == 5


def test_no_limit() -> None:
    """0 takes everything and remembers nobody."""
    assert admitted(Budget(0, Clock()), ONE, 100_000) == 100_000


def test_memory_is_bounded() -> None:
    """Of too many topics those are forgotten that have most of their budget left, never the one that used it up."""
    budget = Budget(1, Clock(), remembered=2)
    assert admitted(budget, ONE, 300) == SAVED_SECONDS
    assert admitted(budget, OTHER, 1) == 1
    assert admitted(budget, "devices/dev_C/heartbeat", 1) == 1
    assert admitted(budget, OTHER, 300) == SAVED_SECONDS
    assert admitted(budget, ONE, 1) == 0
