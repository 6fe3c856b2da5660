"""What a back end says in a device's name: only what the device has signed is taken, and the key is named for it."""

import pytest

from tests.http.support import Api, Json, body
from tests.support.receipts import receipt_of


@pytest.mark.parametrize("status", ["delivered", "executed", "failed"])
@pytest.mark.parametrize("kind", ["factory_reset", "reboot"])
async def test_a_relayed_acknowledgement_needs_its_receipt(api: Api, kind: str, status: str) -> None:
    """A key cannot make up what a device said: without a receipt or with a false one it is refused and audited."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    command = await asked_for(api, bound, kind)
    for false, code in (({}, "receipt_missing"), ({"receipt": "A" * 43}, "receipt_invalid")):
        word = {"command_id": command["id"], "status": status, **false}
        answer = body(await api.back_end.post(f"{path}/heartbeat", json={"last_command": word}), 200)
        assert answer == {"status": "ok"}
        refused = body(await api.back_end.get(f"{path}/events"), 200)["data"][0]
        key_id = body(await api.back_end.get("/v1/key"), 200)["id"]
        said = {name: refused["data"][name] for name in ("actor", "via", "code", "field")}
        assert refused["type"] == "acknowledgement.refused"
        assert said == {"actor": key_id, "via": "relay", "code": code, "field": "last_command.receipt"}
    assert body(await api.back_end.get(f"{path}/commands/{command['id']}"), 200)["status"] == "pending"


@pytest.mark.parametrize("status", ["delivered", "executed", "failed"])
async def test_the_event_of_a_relayed_acknowledgement_names_the_key(api: Api, status: str) -> None:
    """The device signed it and the key brought it: the actor is the key, ``via`` is ``relay``; the late word's too."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    key_id = body(await api.back_end.get("/v1/key"), 200)["id"]
    command = await api.reset(bound["id"])
    for said in (status, "executed" if status == "failed" else "failed"):
        word = {
            "command_id": command["id"],
            "status": said,
            "receipt": receipt_of(bound["device_token"], command, said),
        }
        body(await api.back_end.post(f"{path}/heartbeat", json={"last_command": word}), 200)
    told = [each for each in body(await api.back_end.get(f"{path}/events"), 200)["data"] if "via" in each["data"]]
    assert {(each["data"]["actor"], each["data"]["via"]) for each in told} == {(key_id, "relay")}
    kinds = {
        "delivered": {"reset.delivered", "reset.failed"},
        "executed": {"reset.completed", "token.revoked", "acknowledgement.late"},
        "failed": {"reset.failed", "acknowledgement.late"},
    }
    assert {each["type"] for each in told} == kinds[status]


async def asked_for(api: Api, bound: Json, kind: str) -> Json:
    """An open command of this type."""
    if kind == "factory_reset":
        return await api.reset(bound["id"])
    return body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": kind}), 201)
