"""Lists of resets on either engine: filters, orders, pages and numbers, against what plain Python finds."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.models.reset_list import AGES, OUTCOMES, ListResets, SummarizeResets
from gateway.store import Tx, reset_list
from gateway.store.reset_list import CursorError, ListedReset
from tests.domain.support import World

SEED = 17
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry with some resets of every kind, requested over two months."""
    with World(tmp_path_factory.mktemp("registry")) as opened:
        rng = random.Random(SEED)  # noqa: S311 - a test wants it to be predictable
        print("seed", SEED)  # noqa: T201 - for a failure
        for number in range(24):
            device_id, _ = opened.bound(f"SN-{number}")
            command = opened.reset(device_id)
            opened.now += rng.randrange(48 * HOUR_MS)
            opened.run(_end, command.id, rng.choice([None, *map(str, OUTCOMES)]))
        yield opened


def _end(tx: Tx, command_id: str, outcome: str | None) -> None:
    """End a reset like this, as far as its row goes."""
    if outcome is not None:
        tx.run("UPDATE resets SET outcome = ?, finished_at = ? WHERE command_id = ?", outcome, tx.now, command_id)


def listed(world: World, **filters: Any) -> list[ListedReset]:
    """All that pass the filters, three at a time."""
    found: list[ListedReset] = []
    query = ListResets.model_validate(filters)
    while True:
        rows = reset_list.page(world.view, world.project_id, query, 3)
        found += rows[:3]
        if len(rows) <= 3:
            return found
        query = query.model_copy(update={"cursor": rows[2].command_id})


def at(milliseconds: int) -> str:
    """An instant as a query has it."""
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("time", ["requested_at", "finished_at"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("status", [None, "open", *map(str, OUTCOMES)])
def test_a_list_has_what_passes_the_filters_in_order(world: World, time: str, order: str, status: str | None) -> None:
    """Page by page the same as all at once, sorted by the time and then by the id."""
    everything = listed(world)
    assert len(everything) == 24
    since, until = everything[-4].requested_at, everything[4].requested_at
    wanted = sorted(
        (
            each
            for each in everything
            if getattr(each, time) is not None
            and since <= getattr(each, time) < until
            and status in (None, each.outcome or "open")
        ),
        key=lambda each: (getattr(each, time), each.command_id),
        reverse=order == "desc",
    )
    given = {} if status is None else {"status": status}
    assert listed(world, time=time, order=order, since=at(since), until=at(until), **given) == wanted


def test_the_summary_counts_what_the_lists_have(world: World) -> None:
    """By outcome within a period; open ones by age, each in one class."""
    since = listed(world, time="finished_at")[5].finished_at
    assert since is not None
    found = reset_list.summary(
        world.view, world.project_id, SummarizeResets.model_validate({"since": at(since)}), world.now
    )
    for outcome in OUTCOMES:
        assert getattr(found.finished, outcome.value) == len(
            listed(world, time="finished_at", since=at(since), status=outcome.value)
        )
    opened = listed(world, status="open", order="asc")
    ages = [(world.now - each.requested_at) // 1_000 for each in opened]
    bounds = [*AGES, 10**12]
    assert [each.count for each in found.open.by_age] == [
        sum(low <= age < high for age in ages) for low, high in pairwise(bounds)
    ]
    assert (found.open.count, found.open.oldest_requested_at) == (len(opened), at_ms(opened[0].requested_at))


def at_ms(milliseconds: int) -> str:
    """An instant as an answer has it."""
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_project_without_resets_has_none(tmp_path: Path) -> None:
    """An empty list and zeros; a reset that is dated ahead of the clock counts as new."""
    with World(tmp_path) as empty:
        assert listed(empty) == []
        zero = reset_list.summary(empty.view, empty.project_id, SummarizeResets(), empty.now)
        assert (zero.open.count, zero.open.oldest_requested_at) == (0, None)
        assert [each.count for each in zero.open.by_age] == [0] * len(AGES)
        device_id, _ = empty.bound()
        empty.reset(device_id)
        early = reset_list.summary(empty.view, empty.project_id, SummarizeResets(), empty.now - HOUR_MS)
        assert [each.count for each in early.open.by_age] == [1, 0, 0, 0, 0]
        assert reset_list.to_model(listed(empty)[0], empty.now - HOUR_MS).age_seconds == 0


def test_a_cursor_of_another_list_is_refused(world: World) -> None:
    """An id that is no reset, and an open reset where finished ones are listed."""
    waiting = listed(world, status="open")[0].command_id
    for filters in ({"cursor": "cmd_nobody"}, {"cursor": waiting, "time": "finished_at"}):
        with pytest.raises(CursorError):
            reset_list.page(world.view, world.project_id, ListResets.model_validate(filters), 3)
