"""Devices over HTTP: what each call does and answers, to the field."""

import re
from typing import Any

import pytest

from gateway.store import device_sql
from tests.http.support import Api, Json, body, error
from tests.support.mqtt_password import mqtt_password_of

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FIELDS = [
    "id",
    "project_id",
    "serial_number",
    "model",
    "name",
    "firmware_version",
    "status",
    "end_user_id",
    "binding_generation",
    "battery_percent",
    "storage_used_mb",
    "storage_total_mb",
    "signal_strength_dbm",
    "last_heartbeat_at",
    "recording_state",
    "device_name",
    "connection",
    "tags",
    "metadata",
    "settings",
    "created_at",
    "updated_at",
    "bound_at",
    "deleted_at",
]
SETTINGS = {
    "connection": {
        "enabled_connections": {"wifi": True, "cellular": True},
        "upload_network_preference": ["wifi", "ble", "cellular"],
        "power_management": {"wifi_idle_timeout_seconds": 180, "cellular_idle_timeout_seconds": 180},
    },
    "upload": {
        "streaming_enabled": False,
        "streaming_chunk_kb": 256,
        "daily_data_limit_mb": 0,
        "allow_roaming": False,
        "pause_on_low_battery": True,
        "off_peak_hours": None,
    },
    "audio": {"codec": "opus", "sample_rate_khz": 16, "bitrate_kbps": 32},
    "power": {"auto_sleep_minutes": 30, "low_battery_threshold_percent": 20},
}


async def test_registering_answers_the_whole_device(api: Api) -> None:
    """201 with every field of the contract, in its order, null where nothing is known."""
    device = body(await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 201)

    assert list(device) == FIELDS
    assert re.fullmatch(r"dev_[0-9A-Z]{26}", device.pop("id"))
    created = device.pop("created_at")
    assert RFC3339.fullmatch(created)
    assert device == {
        "project_id": api.project_id,
        "serial_number": "BP-1",
        "model": "bota_pin",
        "name": None,
        "firmware_version": None,
        "status": "unbound",
        "end_user_id": None,
        "binding_generation": 0,
        "battery_percent": None,
        "storage_used_mb": None,
        "storage_total_mb": None,
        "signal_strength_dbm": None,
        "last_heartbeat_at": None,
        "recording_state": None,
        "device_name": None,
        "connection": "offline",
        "tags": [],
        "metadata": None,
        "settings": SETTINGS,
        "updated_at": created,
        "bound_at": None,
        "deleted_at": None,
    }


async def test_registration_answers_the_given_fields(api: Api) -> None:
    """All fields of the body, Unicode and nested documents included."""
    given = {
        "serial_number": "BP-2",
        "model": "bota_note",
        "name": "Zimmer 3, Bett ② 😀",
        "firmware_version": "1.4.2",
        "metadata": {"ward": {"floor": 3, "beds": [1, 2.5, None, True, "x"]}},
    }
    device = body(await api.back_end.post("/v1/devices", json=given), 201)
    assert {name: device[name] for name in given} == given
    assert body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200) == device


async def test_a_known_serial_number_answers_the_known_device(api: Api) -> None:
    """200 with the existing device; what the second body says changes nothing."""
    device = await api.registered("BP-1", name="first")
    again = await api.back_end.post("/v1/devices", json={"serial_number": "BP-1", "name": "second"})
    assert body(again, 200) == device


async def test_a_deleted_serial_number_is_a_conflict(api: Api) -> None:
    """409 ``resource_already_exists`` that names the device to restore."""
    device = await api.registered("BP-1")
    await api.store.write(lambda tx: tx.run("UPDATE devices SET deleted_at = ? WHERE id = ?", tx.now, device["id"]))
    answer = error(
        await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 409, "resource_already_exists"
    )
    assert answer["details"] == {"id": device["id"]}
    error(await api.back_end.get(f"/v1/devices/{device['id']}"), 404, "not_found")
    error(await api.back_end.post(f"/v1/devices/{device['id']}/reset"), 404, "not_found")


async def test_lists_the_newest_first_in_pages(api: Api) -> None:
    """``limit``, ``offset`` and ``has_more`` walk through all devices once."""
    serials = [(await api.registered(f"BP-{n}"))["serial_number"] for n in range(5)]
    pages = [body(await api.back_end.get("/v1/devices", params={"limit": 2, "offset": n}), 200) for n in (0, 2, 4)]
    assert [device["serial_number"] for page in pages for device in page["data"]] == serials[::-1]
    assert [page["has_more"] for page in pages] == [True, True, False]
    beyond = {"data": [], "has_more": False, "next_cursor": None}
    assert body(await api.back_end.get("/v1/devices", params={"offset": 9}), 200) == beyond


async def test_a_page_has_25_devices_by_default(api: Api) -> None:
    """The default of ``limit`` is 25, the largest 1,000."""
    for number in range(26):
        await api.registered(f"BP-{number}")
    page = body(await api.back_end.get("/v1/devices"), 200)
    assert (len(page["data"]), page["has_more"]) == (25, True)
    assert len(body(await api.back_end.get("/v1/devices", params={"limit": 100}), 200)["data"]) == 26
    error(await api.back_end.get("/v1/devices", params={"limit": 1_001}), 400, "invalid_request")


@pytest.mark.parametrize(
    ("parameters", "serials"),
    [
        ({"status": "bound"}, ["BP-1"]),
        ({"status": "unbound"}, ["BP-2"]),
        ({"end_user_id": "eu_1"}, ["BP-1"]),
        ({"end_user_id": "eu_2"}, []),
        ({"model": "bota_note"}, ["BP-2"]),
        ({"serial_number": "BP-1"}, ["BP-1"]),
        ({"connection": "online"}, ["BP-1"]),
        ({"connection": "offline"}, ["BP-2"]),
        ({"status": "bound", "connection": "offline"}, []),
        ({"seen": "true"}, ["BP-1"]),
        ({"seen": "false"}, ["BP-2"]),
        ({"seen": "true", "connection": "offline"}, []),
    ],
)
async def test_filters_devices(api: Api, parameters: dict[str, str], serials: list[str]) -> None:
    """Every filter of the contract, alone and together."""
    bound = await api.bound("BP-1")
    await api.registered("BP-2", model="bota_note")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    page = body(await api.back_end.get("/v1/devices", params=parameters), 200)
    assert [device["serial_number"] for device in page["data"]] == serials


async def test_bind_answers_the_devices_credentials(api: Api) -> None:
    """The device, its token, where the broker is, its topics, and the key that signs its commands."""
    device = await api.registered("BP-1")
    answer = await api.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_42"})
    bound = body(answer, 200)

    assert list(bound) == [*FIELDS, "device_token", "mqtt", "grant_key"]
    assert (bound["status"], bound["end_user_id"], bound["binding_generation"]) == ("bound", "eu_42", 1)
    assert RFC3339.fullmatch(bound["bound_at"])
    assert re.fullmatch(r"dtok_[0-9A-Za-z]{34}", bound["device_token"])
    home = f"devices/{device['id']}"
    assert bound["mqtt"] == {
        "host": "mqtt.example.com",
        "port": 8883,
        "tls": True,
        "username": device["id"],
        "password": mqtt_password_of(bound["device_token"]),
        "client_id": device["id"],
        "topics": {
            "heartbeat": f"{home}/heartbeat",
            "status": f"{home}/status",
            "commands": {
                "factory_reset": f"{home}/commands/factory_reset",
                "start_recording": f"{home}/commands/start_recording",
                "stop_recording": f"{home}/commands/stop_recording",
                "trigger_upload": f"{home}/commands/trigger_upload",
                "reboot": f"{home}/commands/reboot",
                "set_grant_key": f"{home}/commands/set_grant_key",
            },
            "errors": f"{home}/errors",
        },
    }
    jwks = body(await api.as_(None).get("/.well-known/jwks.json"), 200)
    assert jwks == {"keys": [bound["grant_key"]]}
    assert answer.headers["cache-control"] == "no-store"
    assert "x-broker-synced" not in answer.headers


async def test_a_bound_device_is_not_bound_again(api: Api) -> None:
    """409 ``device_already_bound``, also with ``supersede_reset``."""
    bound = await api.bound("BP-1", "eu_1")
    for more in ({}, {"supersede_reset": True}):
        path = f"/v1/devices/{bound['id']}/bind"
        answer = error(await api.back_end.post(path, json={"end_user_id": "eu_2", **more}), 409, "device_already_bound")
        assert answer["details"] == {"end_user_id": "eu_1", "bound_at": bound["bound_at"]}


async def test_a_repeated_unbind_changes_nothing(api: Api) -> None:
    """The generation rises once, the token is revoked."""
    bound = await api.bound()
    unbound = body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    assert list(unbound) == FIELDS
    assert (unbound["status"], unbound["end_user_id"], unbound["bound_at"]) == ("unbound", None, None)
    assert unbound["binding_generation"] == 2
    assert body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200) == unbound
    error(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 401, "unauthorized")


async def test_bind_waits_until_the_broker_has_the_password(api: Api) -> None:
    """Neither before an old reset is cleared nor before the new token is known there does the answer come."""
    bound = await api.bound()
    await api.reset(bound["id"])
    await api.back_end.post(f"/v1/devices/{bound['id']}/bind", json={"end_user_id": "eu_2", "supersede_reset": True})
    row = await api.store.read(lambda view: device_sql.by_id(view, bound["id"]))
    assert row is not None
    assert not await api.store.read(lambda view: view.all("SELECT * FROM outbox WHERE device_pk = ?", row.pk))


async def test_events_record_the_life_cycle_of_a_device(api: Api) -> None:
    """Newest first, with the actor, in pages by cursor, over HTTP as in the registry."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    path = f"/v1/devices/{bound['id']}/events"
    everything = body(await api.back_end.get(path), 200)
    assert [event["type"] for event in everything["data"]][:2] == ["reset.requested", "device.unbound"]
    assert [event["type"] for event in everything["data"]][-2:] == ["device.bound", "device.registered"]
    assert (everything["has_more"], everything["next_cursor"]) == (False, None)
    newest = everything["data"][0]
    assert re.fullmatch(r"evt_[0-9A-Z]{26}", newest["id"])
    assert RFC3339.fullmatch(newest["created_at"])
    assert newest["data"] == {
        "device_id": bound["id"],
        "actor": api.key_id,
        "actor_name": "back end",
        "client_address": "127.0.0.1",
        "command_id": command["id"],
        "end_user_id": "eu_1",
        "binding_generation": 2,
        "recordings": "keep",
    }

    seen: list[Json] = []
    parameters: dict[str, Any] = {"limit": 1}
    while parameters.get("cursor", "first") is not None:
        page = body(await api.back_end.get(path, params=parameters), 200)
        seen += page["data"]
        parameters["cursor"] = page["next_cursor"]
    assert seen == everything["data"]


async def test_a_device_without_heartbeats_has_no_state(api: Api) -> None:
    """Null for all that only the device knows."""
    device = await api.registered()
    assert body(await api.back_end.get(f"/v1/devices/{device['id']}/state"), 200) == {
        "device_id": device["id"],
        "binding_generation": 0,
        "battery_percent": None,
        "storage_used_mb": None,
        "storage_total_mb": None,
        "signal_strength_dbm": None,
        "recording_state": None,
        "last_heartbeat_at": None,
        "last_seen_by": None,
        "connection": "offline",
    }
