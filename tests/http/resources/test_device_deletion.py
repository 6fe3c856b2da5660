"""Deleting a device over HTTP, and bringing it back."""

from typing import Any

import pytest

from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from tests.http.support import Api, body, error

ABOUT_DELETED_ONES = {"restore_device", "list_device_resets", "get_certificate"}
"""What is there for deleted devices: the way back, and the evidence of their resets, which outlives them."""
ON_A_DEVICE = [
    each
    for each in OPERATIONS
    if each.path.startswith("/v1/devices/{device_id}") and each.access.scope and each.id not in ABOUT_DELETED_ONES
]
BODIES = {"bind_device": {"end_user_id": "eu_1"}, "create_command": {"type": "reboot"}}


async def test_deleting_answers_the_device(api: Api) -> None:
    """200: unbound, offline, ``deleted_at`` set; everything else as it was; and it is in no list."""
    bound = await api.bound()
    device = body(
        await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat", json={"battery_percent": 7}), 200
    )
    device = body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)
    deleted = body(await api.back_end.delete(f"/v1/devices/{bound['id']}"), 200)
    assert deleted["deleted_at"] == deleted["updated_at"]
    assert deleted == device | {
        "status": "unbound",
        "end_user_id": None,
        "bound_at": None,
        "binding_generation": 2,
        "connection": "offline",
        "updated_at": deleted["updated_at"],
        "deleted_at": deleted["deleted_at"],
    }
    assert body(await api.back_end.get("/v1/devices"), 200)["data"] == []
    error(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 401, "unauthorized")
    await api.settled()


@pytest.mark.parametrize("operation", ON_A_DEVICE, ids=lambda each: each.id)
async def test_every_call_on_a_deleted_device_is_404(api: Api, operation: AnyOperation) -> None:
    """Also those that its back end relays; the message is that of a device that never was."""
    device = await api.registered()
    body(await api.back_end.delete(f"/v1/devices/{device['id']}"), 200)
    path = operation.path.format(device_id=device["id"], command_id="cmd_1")
    content: Any = {"json": BODIES.get(operation.id, {})} if operation.has_body else {}
    answer = error(await api.back_end.request(operation.method, path, **content), 404, "not_found")
    never = error(
        await api.back_end.request(operation.method, path.replace(device["id"], "dev_never"), **content),
        404,
        "not_found",
    )
    assert answer["message"] == never["message"].replace("dev_never", device["id"])


async def test_a_device_with_an_open_reset_is_not_deleted(api: Api) -> None:
    """409 ``reset_pending`` that names the command; cancelled, the device can go."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    path = f"/v1/devices/{bound['id']}"
    answer = error(await api.back_end.delete(path), 409, "reset_pending")
    assert answer["details"] == {"command_id": command["id"], "status": "pending"}
    body(await api.back_end.post(f"{path}/commands/{command['id']}/cancel"), 200)
    body(await api.back_end.delete(path), 200)


async def test_a_deleted_device_is_restored(api: Api) -> None:
    """Its serial number is taken until then; restored it is unbound, and a second restore is the same."""
    bound = await api.bound()
    path = f"/v1/devices/{bound['id']}"
    deleted = body(await api.back_end.delete(path), 200)
    taken = error(
        await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 409, "resource_already_exists"
    )
    assert taken["details"] == {"id": bound["id"]}
    restored = body(await api.back_end.post(f"{path}/restore"), 200)
    assert restored == deleted | {"deleted_at": None, "updated_at": restored["updated_at"]}
    assert body(await api.back_end.post(f"{path}/restore"), 200) == restored
    assert body(await api.back_end.post("/v1/devices", json={"serial_number": "BP-1"}), 200) == restored
    kinds = [each["type"] for each in body(await api.back_end.get(f"{path}/events"), 200)["data"]]
    assert kinds[:2] == ["device.restored", "device.deleted"]
    assert body(await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_2"}), 200)["binding_generation"] == 3


async def test_an_unknown_device_is_not_restored(api: Api) -> None:
    """404 for an unknown id, and for another project's device, deleted or not."""
    device = await api.registered()
    stranger = api.as_(await api.another_key(project="two"))
    error(await api.back_end.post("/v1/devices/dev_never/restore"), 404, "not_found")
    for _ in range(2):
        error(await stranger.post(f"/v1/devices/{device['id']}/restore"), 404, "not_found")
        error(await stranger.delete(f"/v1/devices/{device['id']}"), 404, "not_found")
        await api.back_end.delete(f"/v1/devices/{device['id']}")


async def test_a_query_on_delete_is_refused(api: Api) -> None:
    """400: DELETE takes no query, so a caller that sends ``?force=true`` learns that it does nothing."""
    device = await api.registered()
    answer = await api.back_end.delete(f"/v1/devices/{device['id']}", params={"force": "true"})
    assert error(answer, 400, "invalid_request")["details"]["field"] == "force"
    body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200)
