"""Rate limits: what a window and the generic cell rate algorithm let pass, and how many keys they remember."""

import random

import pytest

from gateway.core.clock import MINUTE_MS, SECOND_MS
from gateway.core.limits import CellRate, FixedWindow, Window, paid_until
from gateway.mqtt.ingest import SAVED_MESSAGES, SAVED_SECONDS
from gateway.store import Rules
from tests.support.clock import ManualClock

NOON = 1_794_312_000_000
ONE, OTHER = "devices/dev_A/heartbeat", "devices/dev_B/heartbeat"


def admitted(budget: CellRate[str], topic: str, tries: int) -> int:
    """How many of so many messages at once are taken."""
    return sum(budget.take(topic) for _ in range(tries))


def test_a_backlog_passes_and_a_flood_does_not() -> None:
    """What was saved up is there at once, then so many a second; the others have their own."""
    clock = ManualClock(NOON)
    budget = CellRate[str](5, clock, saved_seconds=SAVED_SECONDS)
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS
    assert admitted(budget, OTHER, 10) == 10
    clock.now += 1_000
    assert admitted(budget, ONE, 2_000) == 5
    clock.now += 3_600_000
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS


def test_a_device_may_catch_up_after_a_week_offline() -> None:
    """By default: all that it kept, one a minute, at once; a flood goes on at one a second."""
    clock = ManualClock(NOON)
    budget = CellRate[str](Rules().device_messages_per_second, clock, saved_seconds=SAVED_SECONDS, saved=SAVED_MESSAGES)
    assert admitted(budget, ONE, 7 * 24 * 60 - 80) == 7 * 24 * 60 - 80
    assert admitted(budget, ONE, 2_000) == SAVED_MESSAGES - (7 * 24 * 60 - 80)
    clock.now += 60_000
    assert admitted(budget, ONE, 2_000) == 60


def test_a_clock_that_is_set_back_consumes_nothing() -> None:
    """Nothing is won by it and nothing lost."""
    clock = ManualClock(NOON)
    budget = CellRate[str](5, clock, saved_seconds=SAVED_SECONDS)
    admitted(budget, ONE, 5 * SAVED_SECONDS - 3)
    clock.now -= 3_600_000
    assert admitted(budget, ONE, 10) == 3
    clock.now += 1_000
    assert admitted(budget, ONE, 10) == 5


def test_without_a_limit_everything_passes() -> None:
    """0 takes everything and remembers no caller."""
    assert admitted(CellRate[str](0, ManualClock(NOON), saved_seconds=SAVED_SECONDS), ONE, 100_000) == 100_000


def test_memory_is_bounded() -> None:
    """Of too many topics those are forgotten that have most of their budget left, never the one that used it up."""
    budget = CellRate[str](1, ManualClock(NOON), saved_seconds=SAVED_SECONDS, remembered=2)
    assert admitted(budget, ONE, 300) == SAVED_SECONDS
    assert admitted(budget, OTHER, 1) == 1
    assert admitted(budget, "devices/dev_C/heartbeat", 1) == 1
    assert admitted(budget, OTHER, 300) == SAVED_SECONDS
    assert admitted(budget, ONE, 1) == 0


@pytest.mark.parametrize("limit", range(6))
@pytest.mark.parametrize("at", [0, 1, MINUTE_MS // 2, MINUTE_MS - 1])
def test_a_window_lets_its_limit_pass(limit: int, at: int) -> None:
    """At any instant of it, and the next millisecond after its end begins another one."""
    clock = ManualClock(NOON)
    clock.now += at
    window = FixedWindow[str](limit, MINUTE_MS, clock, most_keys=3)
    assert [window.take("a") for _ in range(limit + 2)] == [True] * limit + [False] * 2
    assert window.left("a") == Window(0, NOON + MINUTE_MS)
    assert window.left("b") == Window(limit, NOON + MINUTE_MS)
    clock.now = NOON + MINUTE_MS - 1
    assert not window.has_room("a")
    clock.now += 1
    assert window.has_room("a") is (limit > 0)
    assert window.left("a") == Window(limit, NOON + 2 * MINUTE_MS)


def test_a_full_window_evicts_the_least_recent_key() -> None:
    """A refused try is seen, too."""
    window = FixedWindow[str](1, MINUTE_MS, ManualClock(NOON), most_keys=3)
    assert [window.take(key) for key in "abc"] == [True] * 3
    assert not window.take("a")
    assert window.take("d")
    assert [window.has_room(key) for key in "acd"] == [False] * 3
    assert window.has_room("b")


def test_a_clock_that_steps_back_starts_another_window() -> None:
    """No caller is locked out."""
    clock = ManualClock(NOON)
    window = FixedWindow[str](1, MINUTE_MS, clock, most_keys=3)
    assert window.take("a")
    clock.now -= 1
    assert window.take("a")


@pytest.mark.parametrize("seed", range(20))
def test_no_window_is_over_its_limit(seed: int) -> None:
    """Any arrivals: of each key, in each window of the clock, the limit passes and no more, and no fewer."""
    arrivals, clock, limit = random.Random(seed), ManualClock(NOON), 7  # noqa: S311 - arrivals, not secrets
    window = FixedWindow[str](limit, SECOND_MS, clock, most_keys=10)
    tries: dict[tuple[str, int], int] = {}
    passed: dict[tuple[str, int], int] = {}
    for _ in range(3_000):
        clock.now += arrivals.choice((0, 0, 1, 50, 400))
        of = (arrivals.choice("abc"), clock.now // SECOND_MS)
        tries[of] = tries.get(of, 0) + 1
        passed[of] = passed.get(of, 0) + window.take(of[0])
    assert passed == {of: min(count, limit) for of, count in tries.items()}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("per_second", "saved_seconds"), [(1, 1), (4, 3), (5, 10), (20, 1)])
def test_no_stretch_of_time_is_over_the_cell_rate(seed: int, per_second: int, saved_seconds: int) -> None:
    """Any arrivals: in each stretch of time, the saved budget and the rate pass, and no more."""
    arrivals, clock = random.Random(seed), ManualClock(NOON)  # noqa: S311 - the same
    budget = CellRate[str](per_second, clock, saved_seconds=saved_seconds)
    passed: list[int] = []
    for _ in range(600):
        clock.now += arrivals.choice((0, 0, 0, 7, 90, 1_100))
        had_room, taken = budget.has_room(ONE), budget.take(ONE)
        assert had_room is taken
        passed += [clock.now] * taken
    for first, begin in enumerate(passed):
        for count, end in enumerate(passed[first:], 1):
            assert count <= saved_seconds * per_second + (end - begin) * per_second // SECOND_MS


@pytest.mark.parametrize("late", [999, 1_000, 1_001])
def test_one_request_a_second_passes(late: int) -> None:
    """The next one passes when a full second is over, neither sooner nor later."""
    clock = ManualClock(NOON)
    budget = CellRate[str](1, clock, saved_seconds=1)
    assert admitted(budget, ONE, 3) == 1
    clock.now += late
    assert budget.take(ONE) is (late >= SECOND_MS)


@pytest.mark.parametrize(
    ("paid", "until"), [(0, 901), (899, 901), (900, 901), (901, 902), (999, 1_000), (1_000, 1_001)]
)
def test_each_request_is_charged_its_cost(paid: int, until: int) -> None:
    """No more than 100 ms are saved at the instant 1,000; each unit costs one."""
    assert paid_until(paid, 1_000, 1, 100) == until
