"""Acknowledgements of devices over HTTP: executed, failed, refused, late, and in the next heartbeat."""

import pytest

from tests.http.resources.support import acknowledge
from tests.http.support import Api, Client, Json, body, error
from tests.support.receipts import receipt_of

HEARTBEAT = {
    "battery_percent": 81,
    "storage_used_mb": 512,
    "storage_total_mb": 8192.5,
    "signal_strength_dbm": -61,
    "firmware_version": "1.5.0",
    "device_state": "recording",
    "connection_type": ["4g", "wifi"],
    "pending_recordings": 3,
    "flags": 17,
    "sent_at": "2026-11-20T08:15:00Z",
    "a_field_of_newer_firmware": {"is": "ignored"},
}


async def test_the_result_of_a_command_must_be_an_object(api: Api) -> None:
    """Null until it says any of it, then each field as it was said last; its name stays beside ``name``."""
    bound = await api.bound()
    assert (bound["recording_state"], bound["device_name"]) == (None, None)
    device = api.as_(bound["device_token"])
    said: list[tuple[Json, Json | None]] = [
        ({"battery_percent": 50, "device_name": "Pin of Éva"}, None),
        ({"flags": 0}, {"flags": 0}),
        ({"connection_type": []}, {"flags": 0}),
        ({"device_state": "idle", "connection_type": ["ble"]},
         {"flags": 0, "device_state": "idle", "connection_type": ["ble"]}),
        ({"pending_recordings": 0, "connection_type": ["wifi", "ble"]},
         {"flags": 0, "device_state": "idle", "pending_recordings": 0, "connection_type": ["wifi", "ble"]}),
        ({"battery_percent": 49},
         {"flags": 0, "device_state": "idle", "pending_recordings": 0, "connection_type": ["wifi", "ble"]}),
    ]  # fmt: skip
    nothing: Json = {"device_state": None, "pending_recordings": None, "flags": None, "connection_type": []}
    for beat, expected in said:
        body(await device.post("/v1/devices/me/heartbeat", json=beat), 200)
        shown = body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)
        state = body(await api.back_end.get(f"/v1/devices/{bound['id']}/state"), 200)
        assert (
            shown["recording_state"] == state["recording_state"] == (None if expected is None else nothing | expected)
        )
        assert (shown["device_name"], shown["name"]) == ("Pin of Éva", None)
    again = body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    assert again["recording_state"]["connection_type"] == ["wifi", "ble"]


async def test_a_device_over_http_is_reset(api: Api) -> None:
    """The whole story: handed over by the heartbeat, acknowledged twice with the receipt, and the token is dead."""
    bound = await api.bound()
    token, path = bound["device_token"], f"/v1/devices/{bound['id']}"
    device = api.as_(token)
    await api.reset(bound["id"])

    answer = body(await device.post("/v1/devices/me/heartbeat", json=HEARTBEAT), 200)
    [command] = answer["commands"]
    assert (command["type"], command["binding_generation"], command["expires_at"]) == ("factory_reset", 1, None)
    assert body(await api.back_end.get(f"{path}/state"), 200)["battery_percent"] is None  # telemetry is not stored

    delivered = await acknowledge(device, command, "delivered", receipt=receipt_of(token, command, "delivered"))
    assert (delivered["status"], delivered["executed_at"]) == ("delivered", None)
    result = {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]}
    executed = await acknowledge(
        device, command, "executed", receipt=receipt_of(token, command, "executed"), result=result
    )
    assert (executed["status"], executed["result"], executed["error"]) == ("executed", result, None)
    assert executed["delivered_at"] <= executed["executed_at"]

    error(await device.post("/v1/devices/me/heartbeat"), 401, "unauthorized")
    assert body(await api.back_end.get(f"{path}/commands/{command['id']}"), 200) == executed
    events = body(await api.back_end.get(f"{path}/events"), 200)["data"]
    assert [event["type"] for event in events][:4] == [
        "token.revoked",
        "reset.completed",
        "reset.delivered",
        "device.online",
    ]


@pytest.mark.guarantee("G10")
async def test_a_failed_reset_leaves_the_token_for_the_next(api: Api) -> None:
    """``failed`` with its error; the token stays ``reset_only``; a new reset is handed over."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    command = await api.reset(bound["id"])
    signed = receipt_of(bound["device_token"], command, "failed")
    failed = await acknowledge(
        device, command, "failed", receipt=signed, error={"code": "flash_worn", "message": "bad block"}
    )
    assert (failed["status"], failed["error"]) == ("failed", {"code": "flash_worn", "message": "bad block"})
    assert body(await device.post("/v1/devices/me/heartbeat"), 200) == {"status": "ok"}
    again = await api.reset(bound["id"])
    assert again["id"] != command["id"]
    assert [each["id"] for each in body(await device.post("/v1/devices/me/heartbeat"), 200)["commands"]] == [
        again["id"]
    ]


@pytest.mark.guarantee("G8")
async def test_a_refused_acknowledgement_is_recorded_and_changes_nothing(api: Api) -> None:
    """Bad receipt, none, unknown command, another device's: refused, counted, audited; the command is untouched."""
    bound, other = await api.bound("BP-1"), await api.bound("BP-2")
    device, stranger = api.as_(bound["device_token"]), api.as_(other["device_token"])
    command = await api.reset(bound["id"])
    good = receipt_of(bound["device_token"], command, "executed")

    async def refused(client: Client, command_id: str, ack: Json, status: int, code: str) -> Json:
        answer = await client.post(f"/v1/devices/me/commands/{command_id}/ack", json={"status": "executed", **ack})
        details: Json = error(answer, status, code)["details"]
        return details

    missing = await refused(device, command["id"], {}, 400, "invalid_request")
    assert missing == {"code": "receipt_missing", "field": "receipt"}
    wrong = await refused(device, command["id"], {"receipt": f"{good[:-4]}AAAA"}, 400, "invalid_request")
    assert wrong == {"code": "receipt_invalid", "field": "receipt"}
    by_password = receipt_of(bound["mqtt"]["password"], command, "executed")
    assert await refused(device, command["id"], {"receipt": by_password}, 400, "invalid_request") == wrong
    unknown = {"code": "unknown_command", "field": "command_id"}
    assert await refused(stranger, command["id"], {"receipt": good}, 404, "not_found") == unknown
    for nothing in ("cmd_01ARZ3NDEKTSV4RRFFQ69G5FAV", "x" * 300, "%20", "..."):
        assert await refused(device, nothing, {"receipt": good}, 404, "not_found") == unknown

    kept = await api.store.read(lambda view: view.all("SELECT device_id, code FROM refusals ORDER BY id"))
    assert [row["code"] for row in kept] == ["receipt_missing", *["receipt_invalid"] * 2, *["unknown_command"] * 5]
    assert [row["device_id"] for row in kept][:4] == [*[bound["id"]] * 3, other["id"]]
    events = body(await api.back_end.get(f"/v1/devices/{bound['id']}/events"), 200)["data"]
    assert [event["type"] for event in events][:6] == ["acknowledgement.refused"] * 6
    path = f"/v1/devices/{bound['id']}/commands/{command['id']}"
    assert body(await api.back_end.get(path), 200) == command


async def test_the_path_names_the_command_that_is_acknowledged(api: Api) -> None:
    """``command_id`` in the body may be left out or say the same; another one is 400."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    command = body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": "reboot"}), 201)
    path = f"/v1/devices/me/commands/{command['id']}/ack"
    answer = await device.post(path, json={"status": "executed", "command_id": "cmd_other"})
    assert error(answer, 400, "invalid_request")["details"]["field"] == "command_id"
    body(await device.post(path, json={"status": "delivered", "command_id": command["id"]}), 200)


@pytest.mark.guarantee("G5")
async def test_an_acknowledgement_of_a_final_command_changes_nothing(api: Api) -> None:
    """200 with the command as it stays; told twice it is told once in the audit trail."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    path = f"/v1/devices/{bound['id']}/commands"
    command = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    body(await api.back_end.post(f"{path}/{command['id']}/cancel"), 200)
    for _ in range(2):
        assert (await acknowledge(device, command, "executed"))["status"] == "cancelled"
    events = body(await api.back_end.get(f"/v1/devices/{bound['id']}/events"), 200)["data"]
    assert [event["type"] for event in events].count("acknowledgement.late") == 1


async def test_last_command_delivers_a_lost_acknowledgement(api: Api) -> None:
    """What a heartbeat says of the last command counts; a false one is kept and does not spoil the heartbeat."""
    bound = await api.bound()
    token = bound["device_token"]
    device = api.as_(token)
    command = await api.reset(bound["id"])
    false = {"command_id": command["id"], "status": "executed", "receipt": "AAAA"}
    answer = body(await device.post("/v1/devices/me/heartbeat", json={"last_command": false}), 200)
    assert [each["id"] for each in answer["commands"]] == [command["id"]]
    kept = await api.store.read(lambda view: view.all("SELECT code FROM refusals"))
    assert [row["code"] for row in kept] == ["receipt_invalid"]

    true = {**false, "receipt": receipt_of(token, command, "executed")}
    answer = body(await device.post("/v1/devices/me/heartbeat", json={"last_command": true}), 200)
    assert answer == {"status": "ok"}
    path = f"/v1/devices/{bound['id']}/commands/{command['id']}"
    assert body(await api.back_end.get(path), 200)["status"] == "executed"
    error(await device.post("/v1/devices/me/heartbeat"), 401, "unauthorized")
