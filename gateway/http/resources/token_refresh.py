"""Operation on a device's own token: its refresh."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from gateway.domain import devices
from gateway.http import auth
from gateway.http.callers import Authorization
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.device_calls import TAG
from gateway.http.resources.devices import SYNCED, device_address, find, wait_until_synced
from gateway.http.responses import ApiResponse
from gateway.models.bindings import RefreshedMqtt, RefreshedToken
from gateway.models.fields import Empty
from gateway.store import Tx


async def refresh_token(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/devices/{device_id}/token/refresh``; it waits until the broker knows the new token.

    It waits for a few seconds at most.
    """
    until = asyncio.get_running_loop().time() + call.services.options.bind_broker_wait_seconds
    device_pk = (await call.work.read(lambda view: find(view, call))).pk
    answer = await call.work.commit(lambda tx: _refresh(tx, call))
    synced = await wait_until_synced(call, device_pk, until)
    return answer if synced else replace(answer, headers={SYNCED: "false"})


def _refresh(tx: Tx, call: RequestContext) -> ApiResponse:
    auth.state_now(tx, call.device_caller)
    refreshed = devices.refresh(tx, call.project_id, call.device_id, call.device_caller.token_id)
    host, port, tls = device_address(call, refreshed.home)
    return ApiResponse(
        RefreshedToken(
            device_token=refreshed.device_token,
            mqtt=RefreshedMqtt(host=host, port=port, tls=tls, password=refreshed.mqtt_password),
            binding_generation=refreshed.binding_generation,
        )
    )


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/token/refresh",
        summary="Get a new device token",
        description="Another token of the same binding and generation with its MQTT password, both shown this once; a "
        "`reset_only` token gets another `reset_only` one. The calling one stays good until the new one is first used, "
        "and is revoked then. So after a lost answer the device calls again with it: at once with the same "
        "`Idempotency-Key`, otherwise after `Retry-After`. Within a minute of the last refresh the answer is 429. Two "
        "are good at most: a second call revokes a new token that was never used. With Mosquitto's password file the "
        "broker takes the new password alone, at once, and the old token stays good over HTTP only. `mqtt` says where "
        "the broker is: a device that was moved to another broker learns that here.",
        tag=TAG,
        access=Authorization(device=True, reset_only=True),
        takes=Empty,
        handler=refresh_token,
        answers={200: RefreshedToken},
        headers={
            SYNCED: "`false` when the broker did not know the new password yet when this was answered: connects with "
            "it are refused until the broker has caught up. Absent otherwise."
        },
    ),
)
