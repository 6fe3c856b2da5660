"""Resetting a device over HTTP: what the call does and answers."""

import pytest

from tests.http.resources.test_devices import FIELDS, RFC3339
from tests.http.support import Api, Json, body, error
from tests.support.outbox import outbox_depth


async def test_reset_answers_every_field_of_the_device(api: Api) -> None:
    """``status`` unbound, ``end_user_id`` null, the generation one higher; all else as it was."""
    bound = await api.bound()
    reset = body(await api.back_end.post(f"/v1/devices/{bound['id']}/reset"), 200)
    assert list(reset) == FIELDS
    changed = {name: reset[name] for name in FIELDS if reset[name] != bound[name]}
    assert RFC3339.fullmatch(changed.pop("updated_at", reset["updated_at"]))
    assert changed == {"status": "unbound", "end_user_id": None, "binding_generation": 2, "bound_at": None}


async def test_a_second_reset_is_the_same_reset(api: Api) -> None:
    """The same answer, and still one command."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    first = body(await api.back_end.post(f"{path}/reset"), 200)
    assert body(await api.back_end.post(f"{path}/reset", json={}), 200) == first
    assert len(body(await api.back_end.get(f"{path}/commands"), 200)["data"]) == 1


async def test_reset_does_not_wait_for_the_broker(api: Api) -> None:
    """With the broker away the answer is the same, and what must reach it waits in the outbox."""
    bound = await api.bound()
    api.broker.switch(up=False)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/reset"), 200)
    assert (await api.store.read(outbox_depth))[0] > 0


async def test_a_bind_with_an_open_reset_needs_supersede(api: Api) -> None:
    """409 ``reset_pending`` names the command; ``supersede_reset`` cancels it and binds."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    path = f"/v1/devices/{bound['id']}"
    answer = error(await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_2"}), 409, "reset_pending")
    assert answer["details"] == {"command_id": command["id"], "status": "pending"}

    again = await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_2", "supersede_reset": True})
    assert body(again, 200)["binding_generation"] == 3
    assert body(await api.back_end.get(f"{path}/commands/{command['id']}"), 200)["status"] == "cancelled"
    error(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 401, "unauthorized")
    body(await api.as_(again.json()["device_token"]).post("/v1/devices/me/heartbeat"), 200)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "wiped\u202e"}, "reason"),
        ({"reason": "line\nfeed"}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": 1}, "reason"),
        ({"reason": "Returned by eu_42."}, "reason"),
        ({"recordings": "all"}, "recordings"),
        ({"recording": "wipe"}, "recording"),
    ],
)
async def test_a_reset_refuses_bad_parameters(api: Api, asked: Json, field: str) -> None:
    """Named; the device stays bound. The same for many devices."""
    bound = await api.bound()
    refused = await api.back_end.post(f"/v1/devices/{bound['id']}/reset", json=asked)
    assert error(refused, 400, "invalid_request")["details"]["field"] == field
    many = await api.back_end.post("/v1/devices/bulk/reset", json={"device_ids": [bound["id"]], **asked})
    assert error(many, 400, "invalid_request")["details"]["field"] == field
    assert body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)["status"] == "bound"


async def test_a_reset_with_parameters_keeps_the_id_of_its_request(api: Api) -> None:
    """The answer's ``X-Request-Id`` is in the registry; another wish for the recordings is 409, in bulk too."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}/reset"
    answer = await api.back_end.post(path, json={"reason": "x" * 200, "recordings": "wipe"})
    assert body(answer, 200)["status"] == "unbound"
    row = await api.store.read(lambda view: view.one("SELECT request_id, recordings, reason FROM resets"))
    assert tuple(row or ()) == (answer.headers["X-Request-Id"], "wipe", "x" * 200)
    body(await api.back_end.post(path), 200)
    other = await api.back_end.post(path, json={"recordings": "keep"})
    assert error(other, 409, "reset_pending")["details"]["recordings"] == "wipe"
    for preview in (False, True):
        asked = {"device_ids": [bound["id"]], "recordings": "keep", "dry_run": preview}
        (outcome,) = body(await api.back_end.post("/v1/devices/bulk/reset", json=asked), 200)["data"]
        assert (outcome["outcome"], outcome["error"]["code"]) == ("failed", "reset_pending")
