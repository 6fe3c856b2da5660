"""The history of heartbeats over HTTP."""

from datetime import datetime
from typing import Any

import pytest

from gateway.core.clock import to_rfc3339
from gateway.store import View
from tests.http.support import Api, Json, body, error

FIELDS = [
    "received_at",
    "sent_at",
    "battery_percent",
    "storage_used_mb",
    "storage_total_mb",
    "signal_strength_dbm",
    "firmware_version",
    "device_state",
    "pending_recordings",
    "flags",
    "connection_type",
    "hour",
]


async def beating(api: Api, *batteries: float, apart_ms: int = 1_000) -> Json:
    """A bound device that has sent a heartbeat with each of these, one second apart."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    for battery in batteries:
        body(await device.post("/v1/devices/me/heartbeat", json={"battery_percent": battery}), 200)
        api.clock.ahead_ms += apart_ms
    return bound


async def listed(api: Api, device: Json, **query: Any) -> Json:
    """A page of its history."""
    return body(await api.back_end.get(f"/v1/devices/{device['id']}/heartbeats", params=query), 200)


def batteries(page: Json) -> list[float]:
    """What a page tells of the battery."""
    return [each["battery_percent"] for each in page["data"]]


async def test_a_heartbeat_is_returned_as_it_was_sent(api: Api) -> None:
    """Every field that is kept, when it came, and when it was sent by the device's clock; null for the rest."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    sent = {
        "battery_percent": 81.5,
        "storage_used_mb": 512,
        "storage_total_mb": 8192,
        "signal_strength_dbm": -61,
        "firmware_version": "1.4.2",
        "device_state": "recording",
        "pending_recordings": 2,
        "flags": 40,
    }
    more = {"connection_type": ["4g", "ble"], "sent_at": "2026-11-20T09:15:00+01:00", "device_name": "mine"}
    body(await device.post("/v1/devices/me/heartbeat", json=sent | more), 200)
    body(await device.post("/v1/devices/me/heartbeat", json={}), 200)
    page = await listed(api, bound)
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    empty, full = page["data"]
    assert list(full) == list(empty) == FIELDS
    received = full.pop("received_at")
    assert full == sent | {"sent_at": "2026-11-20T08:15:00.000Z", "connection_type": ["4g"], "hour": None}
    assert empty.pop("received_at") >= received
    assert set(empty.values()) == {None}


async def test_newest_first_between_two_instants(api: Api) -> None:
    """``since`` is included, ``until`` is not, any time zone is good."""
    bound = await beating(api, 1, 2, 3, 4)
    everything = await listed(api, bound)
    assert batteries(everything) == [4, 3, 2, 1]
    times = {each["battery_percent"]: each["received_at"] for each in everything["data"]}
    assert batteries(await listed(api, bound, since=times[3])) == [4, 3]
    assert batteries(await listed(api, bound, until=times[3])) == [2, 1]
    assert batteries(await listed(api, bound, since=times[2], until=times[4])) == [3, 2]
    assert batteries(await listed(api, bound, since=times[3].replace("Z", "+00:00"))) == [4, 3]
    assert await listed(api, bound, since=times[4], until=times[1]) == {
        "data": [],
        "has_more": False,
        "next_cursor": None,
    }


async def test_pages_are_complete_despite_equal_times(api: Api) -> None:
    """A backlog comes in within a millisecond; its pages still show each once."""
    bound = await beating(api, *range(7))

    def at_once(view: View) -> Any:
        return view.connection.execute("UPDATE heartbeats SET received_at = ? WHERE battery_percent < 5", (1_000,))

    await api.store.write(at_once)
    seen: list[float] = []
    cursor: Json = {}
    pages = 0
    while pages == 0 or cursor["cursor"] is not None:
        page = await listed(api, bound, limit=2, **cursor)
        assert page["has_more"] == (page["next_cursor"] is not None)
        seen += batteries(page)
        cursor, pages = {"cursor": page["next_cursor"]}, pages + 1
    assert (seen, pages) == ([6, 5, 4, 3, 2, 1, 0], 4)


async def test_a_page_has_a_hundred_heartbeats_by_default(api: Api) -> None:
    """And a thousand at most."""
    bound = await beating(api, *range(101), apart_ms=1)
    page = await listed(api, bound)
    assert (len(page["data"]), page["has_more"]) == (100, True)
    assert len((await listed(api, bound, limit=1_000))["data"]) == 101


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1_001},
        {"since": "yesterday"},
        {"since": "1700000000"},
        {"since": "2026-11-20"},
        {"since": "2026-11-20T08:15:00"},
        {"until": "2026-11-20T08:15:00 01:00"},
        {"until": "2026-13-20T08:15:00Z"},
        {"until": "0001-01-01T00:00:00+23:59"},
        {"cursor": "evt_1"},
        {"cursor": "1.2.3"},
        {"before": "2026-11-20T08:15:00Z"},
    ],
)
async def test_a_wrong_query_is_refused_by_name(api: Api, query: Json) -> None:
    """400 that names the parameter; a plus sign that was not encoded is hinted at."""
    device = await api.registered()
    answer = await api.back_end.get(f"/v1/devices/{device['id']}/heartbeats", params=query)
    (name,) = query
    assert error(answer, 400, "invalid_request")["details"]["field"] == name
    if " " in str(query[name]):
        assert "%2B" in answer.json()["error"]["message"]


async def test_the_history_survives_a_bind_and_is_private_to_the_project(api: Api) -> None:
    """A reset takes nothing of it; strangers and devices don't see it."""
    bound = await beating(api, 1)
    path = f"/v1/devices/{bound['id']}/heartbeats"
    error(await api.as_(await api.another_key(project="two")).get(path), 404, "not_found")
    error(await api.as_(bound["device_token"]).get(path), 403, "insufficient_scope")
    await api.reset(bound["id"])
    assert batteries(await listed(api, bound)) == [1]


async def test_times_at_the_bounds_are_accepted(api: Api) -> None:
    """The first and the last instant that can be written are good."""
    bound = await beating(api, 1)
    assert batteries(await listed(api, bound, since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z")) == [1]
    assert batteries(await listed(api, bound, since=to_rfc3339(0), until=to_rfc3339(1))) == []


async def test_sampling_takes_the_newest_heartbeat_of_each_interval(api: Api) -> None:
    """By the clock, page by page, over a gap, and within ``since`` and ``until``; no second is there twice."""
    api.clock.ahead_ms += 10_000 - api.clock() % 10_000
    bound = await beating(api, *range(25))
    api.clock.ahead_ms += 60_000
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/heartbeat", json={"battery_percent": 99}), 200)
    everything = (await listed(api, bound))["data"]
    newest: dict[int, float] = {}
    for each in everything:
        newest.setdefault(int(datetime.fromisoformat(each["received_at"]).timestamp()) // 10, each["battery_percent"])
    wanted = list(newest.values())
    assert len(wanted) >= 4
    assert batteries(await listed(api, bound, every=10)) == wanted
    first = await listed(api, bound, every=10, limit=2)
    rest = await listed(api, bound, every=10, cursor=first["next_cursor"])
    assert (batteries(first) + batteries(rest), rest["has_more"]) == (wanted, False)
    assert batteries(await listed(api, bound, every=10, until=everything[0]["received_at"])) == wanted[1:]
    assert batteries(await listed(api, bound, every=10, since=everything[0]["received_at"])) == [99]
