"""What devices say over HTTP, what they get for it, and what each state of a token opens."""

import pytest

from gateway.errors import UnauthorizedError
from gateway.http.callers import DeviceCaller
from gateway.http.operation import Request, RequestContext
from gateway.http.resources import device_calls
from gateway.http.unit_of_work import UnitOfWork
from gateway.models.commands import CommandAck
from gateway.models.heartbeats import Heartbeat
from gateway.models.states import TokenState
from gateway.store import token_sql
from tests.http.resources.support import acknowledge
from tests.http.support import Api, body, error
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


@pytest.mark.parametrize("me", [True, False])
async def test_a_heartbeat_is_stored(api: Api, *, me: bool) -> None:
    """By ``me`` or by the own id; nothing open: exactly ``{"status":"ok"}``; the state tells all of it."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    answer = await device.post(f"/v1/devices/{'me' if me else bound['id']}/heartbeat", json=HEARTBEAT)
    assert answer.content == b'{"status":"ok"}'

    state = body(await api.back_end.get(f"/v1/devices/{bound['id']}/state"), 200)
    assert state.pop("last_heartbeat_at")
    assert state == {
        "device_id": bound["id"],
        "binding_generation": 1,
        "battery_percent": 81,
        "storage_used_mb": 512,
        "storage_total_mb": 8192.5,
        "signal_strength_dbm": -61,
        "recording_state": {
            "device_state": "recording",
            "pending_recordings": 3,
            "flags": 17,
            "connection_type": ["4g", "wifi"],
        },
        "last_seen_by": "4g",
        "connection": "online",
    }
    shown = body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)
    assert (shown["firmware_version"], shown["battery_percent"], shown["connection"]) == ("1.5.0", 81, "online")


@pytest.mark.parametrize("content", [None, b"", b"{}"])
async def test_an_empty_heartbeat_updates_presence(api: Api, content: bytes | None) -> None:
    """Every field is optional, and so is the body."""
    bound = await api.bound()
    headers = {"Content-Type": "application/json"} if content else {}
    answer = await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat", content=content, headers=headers)
    assert body(answer, 200) == {"status": "ok"}
    assert body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)["connection"] == "online"


async def test_a_heartbeat_is_answered_with_open_commands(api: Api) -> None:
    """The very payloads that lie on the broker, oldest first; ``pending`` gives the same."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    path = f"/v1/devices/{bound['id']}/commands"
    made = [body(await api.back_end.post(path, json={"type": kind}), 201) for kind in ("reboot", "start_recording")]
    fields = ("id", "type", "params", "binding_generation", "created_at", "expires_at", "grant_token")
    expected = [{field: command[field] for field in fields} for command in made]
    assert body(await device.post("/v1/devices/me/heartbeat"), 200) == {"status": "ok", "commands": expected}
    assert body(await device.get("/v1/devices/me/commands/pending"), 200) == {"data": expected}
    assert body(await device.get(f"{path}/pending"), 200) == {"data": expected}


async def test_an_expired_command_is_not_delivered(api: Api) -> None:
    """Also before the sweeper has closed it."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    body(await api.back_end.post(path, json={"type": "reboot", "ttl_seconds": 1}), 201)
    api.clock.ahead_ms += 1_001
    device = api.as_(bound["device_token"])
    assert body(await device.post("/v1/devices/me/heartbeat"), 200) == {"status": "ok"}
    assert body(await device.get("/v1/devices/me/commands/pending"), 200) == {"data": []}


@pytest.mark.guarantee("G4")
async def test_a_relayed_heartbeat_is_ble_and_returns_no_commands(api: Api) -> None:
    """Whatever it says of its links; and an open reset stays ``pending`` (contract, section 4)."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    body(await api.back_end.post(f"{path}/commands", json={"type": "reboot"}), 201)
    relayed = await api.back_end.post(f"{path}/heartbeat", json={"connection_type": ["wifi"], "battery_percent": 7})
    assert relayed.content == b'{"status":"ok"}'
    state = body(await api.back_end.get(f"{path}/state"), 200)
    assert (state["last_seen_by"], state["battery_percent"], state["connection"]) == ("ble", 7, "online")

    command = await api.reset(bound["id"])
    assert (await api.back_end.post(f"{path}/heartbeat", json={"battery_percent": 6})).content == b'{"status":"ok"}'
    state = body(await api.back_end.get(f"{path}/state"), 200)
    assert (state["last_seen_by"], state["battery_percent"]) == ("ble", 7)
    assert body(await api.back_end.get(f"{path}/commands/{command['id']}"), 200)["status"] == "pending"


@pytest.mark.guarantee("G12")
async def test_a_reset_only_token_can_only_fetch_its_reset(api: Api) -> None:
    """The heartbeat and the acknowledgement of the reset; all else is 401 (contract, section 1)."""
    bound = await api.bound()
    device = api.as_(bound["device_token"])
    path = f"/v1/devices/{bound['id']}"
    reboot = body(await api.back_end.post(f"{path}/commands", json={"type": "reboot"}), 201)
    command = await api.reset(bound["id"])
    for method, url in (
        ("GET", "/v1/devices/me/commands/pending"),
        ("GET", f"{path}/commands"),
        ("GET", path),
        ("POST", f"{path}/reset"),
        ("POST", f"/v1/devices/me/commands/{reboot['id']}/ack"),
        ("GET", "/v1/nowhere"),
        ("DELETE", path),
    ):
        word = {"status": "executed"} if url.endswith("ack") else None
        error(await device.request(method, url, json=word), 401, "unauthorized")
    assert [each["id"] for each in body(await device.post(f"{path}/heartbeat"), 200)["commands"]] == [command["id"]]
    signed = receipt_of(bound["device_token"], command, "delivered")
    assert (await acknowledge(device, command, "delivered", receipt=signed))["status"] == "delivered"


@pytest.mark.guarantee("G11")
async def test_an_active_token_is_refused_on_other_operations(api: Api) -> None:
    """The back end's calls are 403, naming the scope; another device is 404, whether it exists or not."""
    bound, other = await api.bound("BP-1"), await api.bound("BP-2")
    device = api.as_(bound["device_token"])
    for method, url, scope in (
        ("GET", "/v1/devices", "devices:read"),
        ("GET", f"/v1/devices/{bound['id']}", "devices:read"),
        ("POST", f"/v1/devices/{bound['id']}/reset", "devices:write"),
        ("GET", "/v1/devices/me/state", "devices:read"),
    ):
        answer = error(await device.request(method, url), 403, "insufficient_scope")
        assert answer["details"] == {"required_scope": scope, "required_scopes": [scope]}
    for stranger in (other["id"], "dev_nobody"):
        error(await device.post(f"/v1/devices/{stranger}/heartbeat"), 404, "not_found")
        error(await device.get(f"/v1/devices/{stranger}/commands/pending"), 404, "not_found")
        ack = await device.post(f"/v1/devices/{stranger}/commands/cmd_1/ack", json={"status": "executed"})
        error(ack, 404, "not_found")


@pytest.mark.guarantee("G13")
@pytest.mark.parametrize("how", ["unbind", "rebind", "cancel"])
async def test_a_revoked_token_is_refused(api: Api, how: str) -> None:
    """401 on everything, however it was revoked."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    if how == "cancel":
        await api.back_end.post(f"{path}/commands/{(await api.reset(bound['id']))['id']}/cancel")
    else:
        await api.back_end.post(f"{path}/unbind")
    if how == "rebind":
        body(await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_2"}), 200)
    device = api.as_(bound["device_token"])
    await api.settled()
    before = api.dump()
    for method, url in (
        ("POST", "/v1/devices/me/heartbeat"),
        ("GET", "/v1/devices/me/commands/pending"),
        ("POST", "/v1/devices/me/commands/cmd_1/ack"),
        ("GET", "/v1/devices"),
        ("GET", "/v1/nowhere"),
    ):
        assert "Bearer" in (await device.request(method, url)).headers["www-authenticate"]
        error(await device.request(method, url), 401, "unauthorized")
    assert api.dump() == before


async def test_a_token_revoked_during_its_request_is_refused(api: Api) -> None:
    """A caller that was admitted and whose token is revoked before its turn gets 401, and nothing is stored."""
    bound = await api.bound()
    row = await api.store.read(lambda view: token_sql.by_secret(view, bound["device_token"]))
    assert row is not None
    caller = DeviceCaller(bound["id"], api.project_id, row.id, TokenState.ACTIVE, used_before=True)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/unbind"), 200)
    await api.settled()
    before = api.dump()
    path = {"device_id": "me", "command_id": "cmd_1"}
    work = UnitOfWork(api.store, api.services.scans, caller.id)
    call = RequestContext(api.services, Request(path, raw=b"{}"), work, caller)
    with pytest.raises(UnauthorizedError):
        await device_calls.send_heartbeat(call, Heartbeat(battery_percent=7))
    with pytest.raises(UnauthorizedError):
        await device_calls.acknowledge_command(call, CommandAck(status="executed"))
    assert api.dump() == before


async def test_the_use_of_credentials_is_recorded(api: Api) -> None:
    """The first use of a device token; of a key that it is in use, at most once a minute."""
    bound = await api.bound()
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)

    async def noted(sql: str) -> int:
        """What has been noted once the writes that wait are through."""
        await api.store.write(lambda _: None, urgent=False)
        moment: int = await api.store.read(lambda view: view.value(sql))
        return moment

    assert await noted("SELECT first_used_at FROM tokens")
    first = await noted("SELECT last_used_at FROM api_keys")
    await api.registered("BP-2")
    assert await noted("SELECT last_used_at FROM api_keys") == first
    api.clock.ahead_ms += 61_000
    await api.registered("BP-3")
    assert await noted("SELECT last_used_at FROM api_keys") > first


async def test_a_relayed_heartbeat_of_an_unbound_device_updates_presence_alone(api: Api) -> None:
    """Neither its health nor its history is stored, and no event comes of it; it was there, and that shows."""
    device = await api.registered()
    path = f"/v1/devices/{device['id']}"
    said = {"battery_percent": 3, "firmware_version": "9.9.9", "flags": 6, "device_state": "storageFull"}
    body(await api.back_end.post(f"{path}/heartbeat", json=said), 200)
    state = body(await api.back_end.get(f"{path}/state"), 200)
    assert (state["connection"], state["last_seen_by"]) == ("online", "ble")
    assert (state["battery_percent"], state["recording_state"]) == (None, None)
    assert body(await api.back_end.get(path), 200)["firmware_version"] != "9.9.9"
    assert body(await api.back_end.get(f"{path}/heartbeats"), 200)["data"] == []
    told = body(await api.back_end.get(f"{path}/events"), 200)["data"]
    assert [each["type"] for each in told] == ["device.online", "device.registered"]
