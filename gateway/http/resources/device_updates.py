"""Operations on a device's record: change, delete, restore."""

from __future__ import annotations

from typing import Final

from gateway.domain import device_updates, devices
from gateway.http.callers import WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.devices import TAG
from gateway.http.responses import ApiResponse
from gateway.models.devices import Device, UpdateDevice
from gateway.models.fields import Empty
from gateway.store import device_sql


async def update_device(call: RequestContext, body: UpdateDevice) -> ApiResponse:
    """``PATCH /v1/devices/{device_id}``."""
    return await call.work.commit(
        lambda tx: ApiResponse(
            device_sql.to_model(device_updates.update(tx, call.project_id, call.device_id, body, call.actor))
        )
    )


async def delete_device(call: RequestContext, _: Empty) -> ApiResponse:
    """``DELETE /v1/devices/{device_id}``."""
    return await call.work.commit(
        lambda tx: ApiResponse(device_sql.to_model(devices.delete(tx, call.project_id, call.device_id, call.actor)))
    )


async def restore_device(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/devices/{device_id}/restore``."""
    return await call.work.commit(
        lambda tx: ApiResponse(device_sql.to_model(devices.restore(tx, call.project_id, call.device_id, call.actor)))
    )


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="PATCH",
        path="/v1/devices/{device_id}",
        summary="Change a device",
        description="What is left out stays. `name` and `firmware_version`: null clears. `metadata` is merged key by "
        "key, null removes a key. `settings` are merged deeply, and what would result is checked as a whole: an "
        "unknown or wrong field is a 400 that names it, such as `settings.audio.bitrate_kbps`. `tags` replaces all "
        "tags, `add_tags` and `remove_tags` change some. Tags are kept sorted, each once. What changes nothing "
        "leaves `updated_at` and the audit trail as they are.",
        tag=TAG,
        access=WRITE,
        takes=UpdateDevice,
        handler=update_device,
        answers={200: Device},
    ),
    Operation(
        method="DELETE",
        path="/v1/devices/{device_id}",
        summary="Delete a device",
        description="Unbinds the device, revokes its token and cancels its open commands; it is not wiped. The record "
        "is kept and can be restored; until then every other call on it is a 404. While a factory reset is open the "
        "answer is 409 `reset_pending`.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=delete_device,
        answers={200: Device},
        conflicts=("reset_pending",),
    ),
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/restore",
        summary="Restore a deleted device",
        description="Brings it back as it was, unbound. A device that is not deleted stays as it is.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=restore_device,
        answers={200: Device},
    ),
)
