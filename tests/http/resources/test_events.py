"""The audit trail of a project: newest first, page by page, filtered, and nothing of anybody else's."""

import json

import pytest

from tests.http.support import Api, Json, body, error

PATH = "/v1/events"


async def listed(api: Api, **query: object) -> Json:
    """One page."""
    return body(await api.back_end.get(PATH, params={k: str(v) for k, v in query.items()}), 200)


async def test_events_are_newest_first_and_complete(api: Api) -> None:
    """All of the project's devices in one list, each event as the device's own list shows it."""
    one, two = await api.bound("BP-1"), await api.bound("BP-2")
    events = (await listed(api))["data"]
    assert [event["type"] for event in events] == ["device.bound", "device.registered"] * 2
    assert [event["data"]["device_id"] for event in events] == [two["id"]] * 2 + [one["id"]] * 2
    own = body(await api.back_end.get(f"/v1/devices/{two['id']}/events"), 200)["data"]
    assert events[:2] == own


async def test_events_are_paged(api: Api) -> None:
    """Each event once, also when new ones come between two pages."""
    for number in range(5):
        await api.registered(f"BP-{number}")
    whole = (await listed(api))["data"]
    page = await listed(api, limit=2)
    pages = page["data"]
    while page["has_more"]:
        await api.registered(f"later {page['next_cursor']}")
        page = await listed(api, limit=2, cursor=page["next_cursor"])
        pages += page["data"]
    assert pages == whole
    assert page["next_cursor"] is None


async def test_events_are_filtered_by_type_and_device(api: Api) -> None:
    """Alone and together; a filter that nothing matches gives an empty list, also an id that is not there."""
    one, two = await api.bound("BP-1"), await api.bound("BP-2")
    bound = await listed(api, type="device.bound")
    assert [event["data"]["device_id"] for event in bound["data"]] == [two["id"], one["id"]]
    of_one = await listed(api, device_id=one["id"])
    assert [event["type"] for event in of_one["data"]] == ["device.bound", "device.registered"]
    both = await listed(api, device_id=one["id"], type="device.bound")
    assert both["data"] == [bound["data"][1]]
    for nothing in ({"type": "token.refreshed"}, {"device_id": "dev_nobody"}):
        assert await listed(api, **nothing) == {"data": [], "has_more": False, "next_cursor": None}


async def test_the_events_of_a_deleted_device_stay(api: Api) -> None:
    """The record of what happened outlives the device."""
    device = await api.registered()
    body(await api.back_end.delete(f"/v1/devices/{device['id']}"), 200)
    types = [event["type"] for event in (await listed(api, device_id=device["id"]))["data"]]
    assert types == ["device.deleted", "device.registered"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("type=device.exploded", "type"),
        ("type=*", "type"),
        ("device_id=BP-1", "device_id"),
        ("device_id=dev_1%0a", "device_id"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("cursor=evt_nobody", "cursor"),
        ("cursor=junk", "cursor"),
        ("since=1", "since"),
    ],
)
async def test_an_invalid_parameter_is_refused(api: Api, query: str, field: str) -> None:
    """400 that names it."""
    answer = error(await api.back_end.get(f"{PATH}?{query}"), 400, "invalid_request")
    assert answer["details"]["field"] == field


async def test_another_project_does_not_see_the_events(api: Api) -> None:
    """No event, not by the device's id, and an event's id is no cursor there."""
    device = await api.registered()
    event = (await listed(api))["data"][0]
    stranger = api.as_(await api.another_key(project="two"))
    for query in ("", f"?device_id={device['id']}", "?type=device.registered"):
        assert body(await stranger.get(f"{PATH}{query}"), 200)["data"] == []
    error(await stranger.get(f"{PATH}?cursor={event['id']}"), 400, "invalid_request")


async def test_a_device_token_is_refused(api: Api) -> None:
    """403: the trail is for back ends."""
    device = api.as_((await api.bound())["device_token"])
    for path in (PATH, f"{PATH}/stream"):
        error(await device.get(path), 403, "insufficient_scope")


async def test_the_actor_of_an_event_has_the_key_name(api: Api) -> None:
    """Beside its id, with the name that it had then; what a device or the gateway did has no name."""
    bound = await api.bound()
    await api.store.write(lambda tx: tx.run("UPDATE api_keys SET name = 'renamed'"))
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    events = {each["type"]: each["data"] for each in (await listed(api))["data"]}
    assert [events[kind]["actor"] for kind in ("device.bound", "device.unbound")] == [api.key_id] * 2
    assert events["device.bound"]["actor_name"] == "back end"
    assert events["device.unbound"]["actor_name"] == "renamed"
    assert "actor_name" not in events["device.online"]


async def test_an_event_contains_the_callers_address(api: Api) -> None:
    """A request with a key leaves its address in its events; a device's does not, or it would locate its wearer."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    body(await device.post("/v1/devices/me/heartbeat", json={"battery_percent": 5}), 200)
    webhook = body(await api.back_end.post("/v1/webhooks", json={"url": "https://example.com/a-secret"}), 201)
    body(await api.back_end.delete(f"/v1/webhooks/{webhook['id']}"), 200)
    found = body(await api.back_end.get("/v1/events"), 200)["data"]
    addresses = {each["type"]: each["data"].get("client_address") for each in found}
    assert addresses == {
        "device.registered": "127.0.0.1",
        "device.bound": "127.0.0.1",
        "device.online": None,
        "device.low_battery": None,
        "webhook.created": "127.0.0.1",
        "webhook.deleted": "127.0.0.1",
    }
    (deleted,) = (each["data"] for each in found if each["type"] == "webhook.deleted")
    assert (deleted["actor"], deleted["webhook_id"], deleted["host"]) == (api.key_id, webhook["id"], "example.com")
    assert "a-secret" not in json.dumps(found)
