"""Every operation of the API, in the order of the document."""

from __future__ import annotations

from typing import Final

from gateway.http import commands, devices, events, fleet, history, meta, refresh, reports, upkeep, webhooks
from gateway.http.operation import AnyOperation

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *meta.OPERATIONS,
    *fleet.OPERATIONS,
    *devices.OPERATIONS,
    *upkeep.OPERATIONS,
    *history.OPERATIONS,
    *reports.OPERATIONS,
    *refresh.OPERATIONS,
    *commands.OPERATIONS,
    *events.OPERATIONS,
    *webhooks.OPERATIONS,
)
