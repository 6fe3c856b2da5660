"""Every operation of the API, in the order of the document."""

from __future__ import annotations

from typing import Final

from gateway.http.operation import AnyOperation
from gateway.http.resources import (
    cells,
    certificates,
    commands,
    device_calls,
    device_updates,
    devices,
    end_users,
    event_list,
    events,
    fleet,
    heartbeat_history,
    jobs,
    list_devices,
    reset_list,
    sign_in,
    system,
    token_refresh,
    webhooks,
)

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *system.OPERATIONS,
    *sign_in.OPERATIONS,
    *fleet.OPERATIONS,
    *devices.OPERATIONS,
    *list_devices.OPERATIONS,
    *device_updates.OPERATIONS,
    *heartbeat_history.OPERATIONS,
    *certificates.OPERATIONS,
    *device_calls.OPERATIONS,
    *token_refresh.OPERATIONS,
    *commands.OPERATIONS,
    *reset_list.OPERATIONS,
    *jobs.OPERATIONS,
    *cells.OPERATIONS,
    *event_list.OPERATIONS,
    *events.OPERATIONS,
    *end_users.OPERATIONS,
    *webhooks.OPERATIONS,
)
