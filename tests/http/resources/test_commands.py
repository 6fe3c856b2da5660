"""Commands over HTTP, by those who give them."""

import re

import httpx
import jwt
import pytest

from gateway.domain.commands import expire
from tests.http.support import Api, body, error
from tests.support.receipts import receipt_of


async def test_creating_answers_the_whole_command(api: Api) -> None:
    """201 with every field of the contract; the grant says the same, signed."""
    bound = await api.bound()
    asked = {"type": "start_recording", "params": {"minutes": 5}, "ttl_seconds": 120}
    command = body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json=asked), 201)

    assert " ".join(command) == (
        "id device_id type status params binding_generation grant_token result error created_at expires_at "
        "delivered_at executed_at"
    )
    assert re.fullmatch(r"cmd_[0-9A-Z]{26}", command["id"])
    assert {**command, "id": "", "created_at": "", "expires_at": "", "grant_token": ""} == {
        "id": "",
        "device_id": bound["id"],
        "type": "start_recording",
        "status": "pending",
        "params": {"minutes": 5},
        "binding_generation": 1,
        "grant_token": "",
        "result": None,
        "error": None,
        "created_at": "",
        "expires_at": "",
        "delivered_at": None,
        "executed_at": None,
    }
    key = jwt.PyJWK(bound["grant_key"])
    claims = jwt.decode(command["grant_token"], key, algorithms=["EdDSA"], audience=bound["id"])
    assert (claims["jti"], claims["cmd"], claims["gen"]) == (command["id"], "start_recording", 1)
    assert claims["exp"] - claims["iat"] in (120, 121)
    assert body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands/{command['id']}"), 200) == command


async def test_one_open_command_of_a_type(api: Api) -> None:
    """409 ``command_pending`` names the open one; another type is another matter."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    first = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    answer = error(await api.back_end.post(path, json={"type": "reboot"}), 409, "command_pending")
    assert answer["details"] == {"command_id": first["id"], "status": "pending"}
    body(await api.back_end.post(path, json={"type": "trigger_upload"}), 201)


async def test_the_same_idempotency_key_is_the_same_command(api: Api) -> None:
    """Asked twice with one key: one command, one answer."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    asked = {"type": "reboot", "idempotency_key": "once"}
    first = body(await api.back_end.post(path, json=asked), 201)
    assert body(await api.back_end.post(path, json=asked), 201) == first


async def test_commands_need_a_binding_and_a_reset_has_its_own_call(api: Api) -> None:
    """409 for an unbound device, for a ``factory_reset`` by this door, and while a reset is open."""
    device = await api.registered("BP-2")
    error(
        await api.back_end.post(f"/v1/devices/{device['id']}/commands", json={"type": "reboot"}),
        409,
        "device_not_bound",
    )
    bound = await api.bound("BP-1")
    path = f"/v1/devices/{bound['id']}/commands"
    error(await api.back_end.post(path, json={"type": "factory_reset"}), 409, "reset_not_a_command")
    await api.reset(bound["id"])
    error(await api.back_end.post(path, json={"type": "reboot"}), 409, "reset_pending")


async def test_the_gateway_alone_sends_a_new_grant_key(api: Api) -> None:
    """409 that says how an operator has it sent; nothing is queued."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    answer = error(await api.back_end.post(path, json={"type": "set_grant_key"}), 409, "reserved_command")
    assert answer["details"] == {"field": "type"}
    assert "gateway signing-keys deliver" in answer["message"]
    assert body(await api.back_end.get(path), 200)["data"] == []


async def test_lists_commands_in_pages(api: Api) -> None:
    """Newest first, by ``cursor``, and by ``status``."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    kinds = ("reboot", "start_recording", "stop_recording")
    made = [body(await api.back_end.post(path, json={"type": kind}), 201) for kind in kinds]
    cancelled = body(await api.back_end.post(f"{path}/{made[0]['id']}/cancel"), 200)

    first = body(await api.back_end.get(path, params={"limit": 2}), 200)
    assert first == {"data": [made[2], made[1]], "has_more": True, "next_cursor": made[1]["id"]}
    second = body(await api.back_end.get(path, params={"limit": 2, "cursor": first["next_cursor"]}), 200)
    assert second == {"data": [cancelled], "has_more": False, "next_cursor": None}
    assert body(await api.back_end.get(path, params={"status": "cancelled"}), 200)["data"] == [cancelled]
    assert body(await api.back_end.get(path, params={"status": "executed"}), 200)["data"] == []


async def cancel(api: Api, verb: str, path: str) -> httpx.Response:
    """Cancel a command by one of the two calls that do."""
    return await (api.back_end.delete(path) if verb == "DELETE" else api.back_end.post(f"{path}/cancel"))


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_an_open_command_is_cancelled(api: Api, verb: str) -> None:
    """It becomes ``cancelled`` and stays so; what has expired cannot be cancelled any more."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/commands"
    command = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    cancelled = body(await cancel(api, verb, f"{path}/{command['id']}"), 200)
    assert cancelled == {**command, "status": "cancelled"}
    assert body(await cancel(api, verb, f"{path}/{command['id']}"), 200) == cancelled
    assert body(await api.back_end.post(f"{path}/{command['id']}/cancel", json={}), 200) == cancelled

    short = body(await api.back_end.post(path, json={"type": "reboot", "ttl_seconds": 1}), 201)
    api.clock.ahead_ms += 2_000
    await api.store.write(expire)
    error(await cancel(api, verb, f"{path}/{short['id']}"), 409, "command_final")
    error(await cancel(api, verb, f"{path}/cmd_01JD3M0000000000000000000A"), 404, "not_found")


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
async def test_a_reset_can_be_cancelled_until_it_is_delivered(api: Api, verb: str) -> None:
    """Before: cancelled, and the token opens nothing. After: 409 ``reset_pending``."""
    bound = await api.bound("BP-1")
    command = await api.reset(bound["id"])
    body(await cancel(api, verb, f"/v1/devices/{bound['id']}/commands/{command['id']}"), 200)
    error(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 401, "unauthorized")

    other = await api.bound("BP-2")
    command = await api.reset(other["id"])
    device = api.as_(other["device_token"])
    ack = {"status": "delivered", "receipt": receipt_of(other["device_token"], command, "delivered")}
    body(await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)
    answer = await cancel(api, verb, f"/v1/devices/{other['id']}/commands/{command['id']}")
    assert error(answer, 409, "reset_pending")["details"]["command_id"] == command["id"]
