"""Ids and times: their form, and that ids rise whatever the clock does."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import clock, ids
from tests.domain.support import NOON, seeded

MOMENTS = st.integers(min_value=0, max_value=2**47)


@pytest.mark.parametrize(
    "prefix", [ids.PROJECT, ids.DEVICE, ids.END_USER, ids.COMMAND, ids.EVENT, ids.WEBHOOK, ids.KEY]
)
def test_an_id_is_its_prefix_and_a_ulid(prefix: str) -> None:
    """The form of the contract's section 1: prefix, then 26 of Crockford's letters and digits."""
    new = ids.Ids(seeded(1)).new(prefix, NOON)
    assert ids.is_id(prefix, new)
    assert len(new) == len(prefix) + 26
    assert not set(new.removeprefix(prefix)) - set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_a_ulid_contains_its_time() -> None:
    """The first ten characters are the milliseconds since the epoch, by the ULID specification."""
    body = ids.Ids(seeded(1)).new("dev_", NOON).removeprefix("dev_")
    value = 0
    for letter in body[:10]:
        value = value * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    assert value == NOON


@given(st.lists(MOMENTS, min_size=2, max_size=50))
def test_ids_rise_whatever_the_clock_does(moments: list[int]) -> None:
    """Within a millisecond, and when the clock steps back, each id is greater than the one before."""
    mint = ids.Ids(seeded(2))
    minted = [mint.new("evt_", moment) for moment in moments]
    assert minted == sorted(set(minted))


def test_two_generators_that_start_from_one_id_never_collide() -> None:
    """The command line beside a running gateway, with a clock that is behind: both go on from the newest id."""
    newest = ids.Ids(seeded(3)).new("evt_", NOON).removeprefix("evt_")
    gateway, beside = ids.Ids(seeded(4)), ids.Ids(seeded(5))
    minted = []
    for mint in (gateway, beside):
        mint.after(newest)
        minted += [mint.new("evt_", NOON - 3_600_000) for _ in range(5_000)]
    assert len(set(minted)) == len(minted)
    assert min(minted) > "evt_" + newest
    assert max(minted)[:14] <= ids.Ids(seeded(1)).new("evt_", NOON + 1)[:14], "5,000 ids take a millisecond at most"


def test_ids_rise_when_the_random_part_is_used_up() -> None:
    """The last id of a millisecond is followed by one of the next."""
    mint = ids.Ids(lambda count: b"\xff" * count)
    first, second = mint.new("evt_", NOON), mint.new("evt_", NOON)
    assert first < second


@pytest.mark.parametrize(
    "text", ["", "dev_", "dev", "cmd_1", "dev_" + "a" * 65, "dev_a/b", "dev_a+", "dev_#", "dev_a\n", "dev_ä"]
)
def test_invalid_ids_are_refused(text: str) -> None:
    """Other prefixes, no body, too long a body, and anything that could break out of a topic pattern."""
    assert not ids.is_id(ids.DEVICE, text)


def test_times_at_the_bounds_are_encoded() -> None:
    """RFC 3339 in UTC with ``Z`` and three decimals."""
    assert clock.to_rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert clock.to_rfc3339(NOON + 7) == "2026-11-10T12:00:00.007Z"


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_round_trip_to_the_millisecond(moment: datetime) -> None:
    """There and back: nothing is lost but what is smaller than a millisecond."""
    shown = datetime.fromisoformat(clock.to_rfc3339(clock.from_datetime(moment)))
    assert shown == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_the_system_clock_counts_milliseconds() -> None:
    """It agrees with the standard library to the second."""
    before = int(datetime.now(UTC).timestamp()) * 1000
    assert before <= clock.system_clock() <= int(datetime.now(UTC).timestamp() + 1) * 1000
