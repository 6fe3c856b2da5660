"""Every operation of the API, in the order in which paths are matched."""

from __future__ import annotations

from typing import Final

from gateway.http import commands, devices, events, fleet, history, meta, refresh, reports, upkeep, webhooks
from gateway.http.operation import AnyOperation

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *meta.OPERATIONS,
    *fleet.OPERATIONS,  # its devices/stats before devices/{device_id}
    *devices.OPERATIONS,
    *upkeep.OPERATIONS,
    *history.OPERATIONS,
    *reports.OPERATIONS,  # its commands/pending before commands/{command_id}
    *refresh.OPERATIONS,
    *commands.OPERATIONS,
    *events.OPERATIONS,
    *webhooks.OPERATIONS,
)
