"""Pauses between connections: they grow, they spread, and a link that was cut at once earns no forgiveness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.backoff import FIRST_SECONDS, LONGEST_SECONDS, REFUSED_LONGEST_SECONDS, STABLE_SECONDS, Backoff
from tests.device_sim.support import seeded


def test_the_delay_grows_to_its_bound() -> None:
    """Each pause lies between a half and the whole of a bound that doubles until it is the longest."""
    backoff = Backoff(seeded())
    pauses = [backoff.after_loss(held=0) for _ in range(12)]
    for number, pause in enumerate(pauses):
        bound = min(LONGEST_SECONDS, FIRST_SECONDS * 2**number)
        assert bound / 2 <= pause <= bound


def test_short_links_count_as_failures() -> None:
    """Connected and cut at once, again and again: the pauses grow as if nothing had answered."""
    backoff = Backoff(seeded())
    for _ in range(5):
        backoff.after_loss(held=STABLE_SECONDS / 2)
    assert backoff.failures == 5


def test_a_stable_link_resets_the_delay() -> None:
    """After a link that held, the first pause is a short one."""
    backoff = Backoff(seeded())
    for _ in range(9):
        backoff.after_loss(held=0)
    assert backoff.after_loss(held=STABLE_SECONDS) <= FIRST_SECONDS


def test_refusals_wait_longer() -> None:
    """A refused token waits up to five minutes, never permanently, and any other end of a link resets the count."""
    backoff = Backoff(seeded())
    pauses = [backoff.after_refusal() for _ in range(20)]
    assert LONGEST_SECONDS < pauses[-1] <= REFUSED_LONGEST_SECONDS
    assert backoff.refusals == 20
    backoff.after_loss(held=0)
    assert backoff.refusals == 0


def test_jitter_spreads_a_fleet() -> None:
    """A thousand devices that lose their broker at one moment don't come back at one moment."""
    pauses = [Backoff(seeded(number)).after_loss(held=0) for number in range(1000)]
    tenths = {round(pause * 40) for pause in pauses}
    assert len(tenths) >= 10


@given(st.integers(min_value=1, max_value=5000))
def test_the_delay_never_overflows(failures: int) -> None:
    """However long a broker is away, there is a pause and it has a bound."""
    backoff = Backoff(seeded())
    backoff.failures = failures
    assert 0 < backoff.after_loss(held=0) <= LONGEST_SECONDS


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_delays(seed: int) -> None:
    """The same seed waits alike."""
    one, two = Backoff(seeded(seed)), Backoff(seeded(seed))
    assert [one.after_loss(held=0) for _ in range(5)] == [two.after_loss(held=0) for _ in range(5)]
