"""The list of devices: its orders, its cursors, its total, and pages of a thousand."""

import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.models.devices import RegisterDevice
from gateway.store import Tx, device_sql
from tests.http.support import Api, Json, body, error

PATH = "/v1/devices"
ORDERS = list(itertools.product(("created_at", "updated_at", "serial_number", "name"), ("asc", "desc")))


async def listed(api: Api, **query: Any) -> Json:
    """A page."""
    return body(await api.back_end.get(PATH, params=query), 200)


async def pages(api: Api, **query: Any) -> AsyncIterator[list[Json]]:
    """All pages, by cursor."""
    page = await listed(api, **query)
    yield page["data"]
    while page["has_more"]:
        page = await listed(api, **query, cursor=page["next_cursor"])
        yield page["data"]
    assert page["next_cursor"] is None


async def insert(api: Api, count: int) -> None:
    """Register many devices in one transaction."""

    def many(tx: Tx) -> None:
        for number in range(count):
            wanted = RegisterDevice(serial_number=f"BP-{number:06}", name=f"Ward {number % 97}")
            device_sql.insert(tx, f"dev_{number:026}", api.project_id, wanted, "bota_pin")

    await api.store.write(many)


@pytest.mark.parametrize(("sort", "order"), ORDERS)
async def test_each_order_can_be_paged_by_cursor(api: Api, sort: str, order: str) -> None:
    """Every device comes once, in order; equal values too, and devices without a name, which come first from A to Z."""
    names = ["ward 2", None, "Ward 1", "ward 2", None, "Éva", "Zoë", "ward 10"]
    for number, name in enumerate(names):
        api.clock.ahead_ms += 1_000
        await api.registered(f"BP-{number * 7 % 8}", **({} if name is None else {"name": name}))
    first = (await listed(api, limit=100))["data"][-1]
    api.clock.ahead_ms += 1_000
    body(await api.back_end.patch(f"{PATH}/{first['id']}", json={"metadata": {"a": 1}}), 200)

    there = (await listed(api, limit=100))["data"][::-1]
    found = [each async for page in pages(api, sort=sort, order=order, limit=3) for each in page]

    expected = sorted(there, key=lambda each: in_order(each, sort))  # equal ones in the order of their registration
    assert [each["id"] for each in found] == [each["id"] for each in expected[:: 1 if order == "asc" else -1]]
    assert found == (await listed(api, sort=sort, order=order, limit=100))["data"]


def in_order(device: Json, sort: str) -> str:
    """What a device is sorted by: SQLite knows the capitals of ASCII."""
    value = device[sort] or ""
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), value) if sort == "name" else value


async def test_times_are_newest_first_and_texts_ascend_without_an_order(api: Api) -> None:
    """What people expect of each column; the list without any of it stays the newest first."""
    for serial in ("B", "C", "A"):
        await api.registered(serial, name=f"name {serial}")
    orders = {"created_at": "ACB", "updated_at": "ACB", "serial_number": "ABC", "name": "ABC"}
    for sort, expected in orders.items():
        assert "".join(each["serial_number"] for each in (await listed(api, sort=sort))["data"]) == expected
    assert "".join(each["serial_number"] for each in (await listed(api))["data"]) == "ACB"


async def test_a_cursor_stays_valid_while_devices_change(api: Api) -> None:
    """A device that is registered, renamed or deleted meanwhile moves no other one; the last of a page may be gone."""
    there = [str((await api.registered(f"BP-{number}", name=f"n{number}"))["id"]) for number in range(6)]
    first = await listed(api, sort="name", limit=2)
    last_of_page = first["data"][-1]["id"]
    body(await api.back_end.delete(f"{PATH}/{last_of_page}"), 200)
    body(await api.back_end.patch(f"{PATH}/{there[0]}", json={"name": "n55"}), 200)
    await api.registered("BP-new", name="n11")
    rest = await listed(api, sort="name", cursor=first["next_cursor"], limit=100)
    assert [each["name"] for each in rest["data"]] == ["n11", "n2", "n3", "n4", "n5", "n55"]


async def test_a_foreign_cursor_is_refused(api: Api) -> None:
    """Of another order, another project, made up: 400 names the field, and never 500."""
    for number in range(3):
        await api.registered(f"BP-{number}")
    cursor = (await listed(api, limit=1, sort="name"))["next_cursor"]
    other = api.as_(await api.another_key(project="two"))
    wrong: list[Json] = [
        {"cursor": cursor},
        {"cursor": cursor, "sort": "name", "order": "desc"},
        {"cursor": cursor[:-4], "sort": "name"},
        *({"cursor": text} for text in ("", "x", "bnVsbA", "W10", "ö", "WzEsMiwzLDRd", "e30", "W" * 3_000)),
    ]
    for query in wrong:
        refused = error(await api.back_end.get(PATH, params=query), 400, "invalid_request")
        assert refused["details"]["field"] == "cursor"
    error(await other.get(PATH, params={"cursor": cursor, "sort": "name"}), 400, "invalid_request")
    refused = error(
        await api.back_end.get(PATH, params={"cursor": cursor, "sort": "name", "offset": 1}), 400, "invalid_request"
    )
    assert refused["details"]["field"] == "cursor"
    assert "Leave one of them out" in refused["message"]


async def test_a_total_counts_what_the_filters_pass(api: Api) -> None:
    """On request, beside any page; left out otherwise."""
    for number in range(5):
        await api.bound(f"BP-{number}") if number % 2 else await api.registered(f"BP-{number}", name="Ward 3")
    plain = await listed(api, limit=2)
    assert list(plain) == ["data", "has_more", "next_cursor"]
    filters: list[tuple[Json, int]] = [
        ({}, 5),
        ({"status": "bound"}, 2),
        ({"search": "ward 3"}, 3),
        ({"search": "ward 3", "status": "bound"}, 0),
        ({"connection": "online"}, 0),
        ({"condition": "reset_pending"}, 0),
    ]
    for query, expected in filters:
        page = await listed(api, total=True, limit=1, **query)
        assert (page["total"], page["total_is_exact"]) == (expected, True), query
    second = await listed(api, total=True, limit=2, cursor=plain["next_cursor"])
    assert second["total"] == 5


async def test_a_total_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that is larger than what is counted gets a number that says that it is a lower bound.

    Kept counts are exact in any fleet.
    """
    monkeypatch.setattr("gateway.store.device_totals.MOST_COUNTED", 4)
    for number in range(6):
        await api.registered(f"BP-{number}", name="odd" if number % 2 else "even")
    for kept in ({}, {"status": "unbound"}, {"connection": "offline"}, {"seen": False}):
        page = await listed(api, total=True, **kept)
        assert (page["total"], page["total_is_exact"], len(page["data"])) == (6, True, 6)
    monkeypatch.setattr("gateway.store.device_candidates.FEW", 3)
    page = await listed(api, total=True, model="bota_pin")
    assert (page["total"], page["total_is_exact"], len(page["data"])) == (4, False, 6)
    page = await listed(api, total=True, search="odd")
    assert (page["total"], page["total_is_exact"]) == (3, True), "few that an index finds are counted whole"


async def test_a_page_has_up_to_a_thousand(api: Api) -> None:
    """A thousand ordinary devices are one page; 1,001 are refused."""
    await insert(api, 1_500)
    page = await listed(api, limit=1_000)
    assert (len(page["data"]), page["has_more"]) == (1_000, True)
    rest = await listed(api, limit=1_000, cursor=page["next_cursor"])
    assert (len(rest["data"]), rest["has_more"]) == (500, False)
    assert len({each["id"] for each in page["data"] + rest["data"]}) == 1_500
    error(await api.back_end.get(PATH, params={"limit": 1_001}), 400, "invalid_request")


async def test_a_page_that_would_be_too_long_ends_early(api: Api) -> None:
    """Of large devices fewer come than were asked for, and the cursor goes on after the last that came."""
    await insert(api, 400)

    def fill(tx: Tx) -> None:
        tx.run("UPDATE devices SET metadata = ?", '{"a":"' + "x" * 8_000 + '"}')

    await api.store.write(fill)
    answer = await api.back_end.get(PATH, params={"limit": 1_000})
    assert answer.json()["has_more"]
    assert 1_900_000 < len(answer.content) <= 2 * 1_048_576
    seen = [each["id"] async for page in pages(api, limit=1_000) for each in page]
    assert (len(seen), len(set(seen))) == (400, 400)
