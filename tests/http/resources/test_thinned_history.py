"""The history of heartbeats over HTTP, where old ones were thinned to hours."""

from typing import Any

from gateway.core.clock import HOUR_MS, MINUTE_MS, to_rfc3339
from gateway.store import thinned_sql
from tests.http.resources.test_heartbeat_history import batteries, beating, listed
from tests.http.support import Api, Json


async def thinned(api: Api, *, before: int) -> None:
    """Thin what was received before then (milliseconds since the epoch)."""
    while await api.store.write(lambda tx: thinned_sql.thin(tx, before, 100)):
        pass


async def two_hours_and_two(api: Api) -> tuple[Json, int]:
    """A device with two thinned hours of three heartbeats and two heartbeats since; when the third hour began."""
    even = 2 * HOUR_MS  # where a curve of a point every two hours has one
    api.clock.ahead_ms += even - api.clock() % even
    began = api.clock()
    bound = await beating(api, 1, 2, 3, 4, 5, 6, 7, 8, apart_ms=20 * MINUTE_MS)
    await thinned(api, before=began + 2 * HOUR_MS)
    return bound, began + 2 * HOUR_MS


async def paged(api: Api, device: Json, **query: Any) -> list[float]:
    """What all pages tell of the battery."""
    found: list[float] = []
    page = await listed(api, device, **query)
    found += batteries(page)
    while page["has_more"]:
        page = await listed(api, device, **query, cursor=page["next_cursor"])
        found += batteries(page)
    return found


async def test_hours_follow_the_heartbeats(api: Api) -> None:
    """Each with the values of its last heartbeat, and with ``hour``: how many there were, least and greatest."""
    bound, third = await two_hours_and_two(api)
    page = (await listed(api, bound))["data"]
    assert [each["battery_percent"] for each in page] == [8, 7, 6, 3]
    assert [each["hour"] and each["hour"]["heartbeats"] for each in page] == [None, None, 3, 3]
    hour = page[2]["hour"]
    assert to_rfc3339(third - 20 * MINUTE_MS) <= page[2]["received_at"] < to_rfc3339(third)
    assert to_rfc3339(third - HOUR_MS) <= hour["first_received_at"] < to_rfc3339(third - 40 * MINUTE_MS)
    assert [hour[f"battery_percent_{which}"] for which in ("first", "min", "max")] == [4, 4, 6]
    assert hour["signal_strength_dbm_min"] is None


async def test_pages_go_on_from_heartbeats_to_hours(api: Api) -> None:
    """Whatever their size; ``since``, ``until`` and ``every`` hold for both."""
    bound, third = await two_hours_and_two(api)
    for limit in (1, 2, 3):
        assert await paged(api, bound, limit=limit) == [8, 7, 6, 3]
        assert await paged(api, bound, limit=limit, every=7_200) == [8, 6]
        assert await paged(api, bound, limit=limit, until=to_rfc3339(third)) == [6, 3]
        assert await paged(api, bound, limit=limit, since=to_rfc3339(third - HOUR_MS)) == [8, 7, 6]


async def test_what_is_thinned_between_two_pages_is_not_missed(api: Api) -> None:
    """The list goes on with the hour of the heartbeat that was shown last."""
    bound, third = await two_hours_and_two(api)
    page = await listed(api, bound, limit=1)
    await thinned(api, before=third + HOUR_MS)
    assert batteries(await listed(api, bound, cursor=page["next_cursor"])) == [8, 6, 3]
    assert (await listed(api, bound))["data"][0]["hour"]["battery_percent_min"] == 7
