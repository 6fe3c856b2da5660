"""Every operation of the API, in the order in which paths are matched."""

from __future__ import annotations

from typing import Final

from gateway.http import commands, devices, meta, reports
from gateway.http.operation import AnyOperation

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    *meta.OPERATIONS,
    *devices.OPERATIONS,
    *reports.OPERATIONS,  # its commands/pending before commands/{command_id}
    *commands.OPERATIONS,
)
