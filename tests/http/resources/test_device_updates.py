"""Changing a device over HTTP: what comes back, what is told, and what a wrong field is answered."""

from typing import Any

import pytest

from tests.http.support import Api, Json, body, error


async def changed(api: Api, device: Json, **change: Any) -> Json:
    """The device after this change."""
    return body(await api.back_end.patch(f"/v1/devices/{device['id']}", json=change), 200)


async def test_a_change_answers_the_whole_device(api: Api) -> None:
    """Every field; only what was given is another, and ``updated_at``."""
    device = await api.registered("BP-1", name="Bed 2", metadata={"ward": 3, "old": True})
    api.clock.ahead_ms += 1_000
    after = await changed(
        api,
        device,
        name="Bett ② 🛏",
        firmware_version="2.0",
        metadata={"old": None, "room": {"floor": 1}},
        settings={"upload": {"off_peak_hours": {"start": "22:00", "end": "06:00"}}},
    )
    assert list(after) == list(device)
    settings = {**device["settings"], "upload": {**device["settings"]["upload"]}}
    hours = {"enabled": True, "start": "22:00", "end": "06:00", "timezone": None}
    settings["upload"]["off_peak_hours"] = hours
    assert after["updated_at"] > device["updated_at"]
    assert after == device | {
        "name": "Bett ② 🛏",
        "firmware_version": "2.0",
        "metadata": {"ward": 3, "room": {"floor": 1}},
        "settings": settings,
        "updated_at": after["updated_at"],
    }
    assert body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200) == after
    (event, _) = body(await api.back_end.get(f"/v1/devices/{device['id']}/events"), 200)["data"]
    assert event["type"] == "device.updated"
    assert event["data"] == {
        "device_id": device["id"],
        "actor": api.key_id,
        "actor_name": "back end",
        "client_address": "127.0.0.1",
        "name": "Bett ② 🛏",
        "firmware_version": "2.0",
        "metadata": {"old": None, "room": {"floor": 1}},
        "settings": {"upload": {"off_peak_hours": hours}},
    }


async def test_an_unchanged_update_records_no_event(api: Api) -> None:
    """An empty change, and the device as it is: the same answer, to the field."""
    device = await api.registered("BP-1", name="Bed 2", metadata={"ward": 3})
    api.clock.ahead_ms += 1_000
    assert await changed(api, device) == device
    same = {name: device[name] for name in ("name", "firmware_version", "metadata", "settings")}
    assert await changed(api, device, **same) == device
    assert len(body(await api.back_end.get(f"/v1/devices/{device['id']}/events"), 200)["data"]) == 1


async def test_settings_are_always_complete(api: Api) -> None:
    """Merged deeply over what was set before, in the list of devices too; lists are replaced."""
    device = await api.registered()
    await changed(api, device, settings={"audio": {"codec": "aac"}})
    await changed(api, device, settings={"audio": {"bitrate_kbps": 128}})
    after = await changed(api, device, settings={"connection": {"upload_network_preference": ["ble"]}})
    assert after["settings"]["audio"] == {"codec": "aac", "sample_rate_khz": 16, "bitrate_kbps": 128}
    assert after["settings"]["connection"]["upload_network_preference"] == ["ble"]
    assert after["settings"]["power"] == device["settings"]["power"]
    assert body(await api.back_end.get("/v1/devices"), 200)["data"] == [after]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "x" * 129}, "name"),
        ({"name": "🛏" * 65}, "name"),
        ({"name": 7}, "name"),
        ({"firmware_version": "x" * 33}, "firmware_version"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": "x" * 8_192}}, "metadata"),
        ({"settings": None}, "settings"),
        ({"settings": []}, "settings"),
        ({"settings": {"audio": {"bitrate_kbps": 5}}}, "settings.audio.bitrate_kbps"),
        ({"settings": {"audio": {"volume": 5}}}, "settings.audio.volume"),
        (
            {"settings": {"power": {"low_battery_threshold_percent": 101}}},
            "settings.power.low_battery_threshold_percent",
        ),
        ({"serial_number": "BP-9"}, "serial_number"),
        ({"status": "bound"}, "status"),
        ({"end_user_id": "eu_1"}, "end_user_id"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, change: Json, field: str) -> None:
    """400 ``invalid_request`` with the dotted field in message and details; the device stays as it was."""
    device = await api.registered()
    answer = error(await api.back_end.patch(f"/v1/devices/{device['id']}", json=change), 400, "invalid_request")
    assert answer["details"]["field"] == field
    assert answer["message"].startswith(f"{field}: ")
    assert body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200) == device


async def test_all_invalid_settings_are_named(api: Api) -> None:
    """Not the first alone."""
    device = await api.registered()
    wrong = {"settings": {"audio": {"bitrate_kbps": 5, "codec": "mp3"}, "sound": {}}}
    details = error(await api.back_end.patch(f"/v1/devices/{device['id']}", json=wrong), 400, "invalid_request")[
        "details"
    ]
    assert {problem["field"] for problem in details["problems"]} == {
        "settings.audio.bitrate_kbps",
        "settings.audio.codec",
        "settings.sound",
    }


async def test_a_name_of_128_utf_16_units_is_taken(api: Api) -> None:
    """64 characters beyond the basic plane are 128 units."""
    device = await api.registered()
    assert (await changed(api, device, name="🛏" * 64))["name"] == "🛏" * 64
    assert (await changed(api, device, name=None))["name"] is None


async def test_a_change_needs_its_scope(api: Api) -> None:
    """A key that may write, of its project; 403 for one that may read alone and for the device, 404 for strangers."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    change = {"name": "x"}
    error(await api.as_(await api.another_key("devices:read")).patch(path, json=change), 403, "insufficient_scope")
    error(await api.as_(bound["device_token"]).patch(path, json=change), 403, "insufficient_scope")
    error(await api.as_(await api.another_key(project="two")).patch(path, json=change), 404, "not_found")
    body(await api.as_(await api.another_key("devices:write")).patch(path, json=change), 200)
