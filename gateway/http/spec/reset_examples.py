"""Examples of resets for the OpenAPI document, by the name of the model or of the operation."""

from __future__ import annotations

from typing import Any, Final

from gateway.core import csv_text
from gateway.models.reset_list import CSV_COLUMNS

_RESET: Final[dict[str, Any]] = {
    "command_id": "cmd_01JD3N0A1B2C3D4E5F6G7H8J9K",
    "device_id": "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
    "serial_number": "BP-000123",
    "model": "bota_pin",
    "status": "executed",
    "requested_at": "2026-11-20T08:16:00.000Z",
    "requested_by": "key_01JD3M0000000000000000000B",
    "requested_by_name": "backend",
    "reason": "Returned by ward 3",
    "recordings": "keep",
    "delivered_at": "2026-11-20T08:16:01.000Z",
    "finished_at": "2026-11-20T08:16:03.000Z",
    "age_seconds": None,
    "token_revoked_at": "2026-11-20T08:16:03.000Z",
    "sessions_closed_at": "2026-11-20T08:16:03.000Z",
    "retained_cleared_at": "2026-11-20T08:16:03.000Z",
    "certificate_id": "cert_01JD3N0A1B2C3D4E5F6G7H8J9P",
    "addendum_id": None,
}
_CSV: Final = "".join(map(csv_text.line, (CSV_COLUMNS, _RESET.values())))

RESET_EXAMPLES: Final[dict[str, Any]] = {
    "ResetList": {"data": [_RESET], "has_more": False, "next_cursor": None},
    "list_resets text/csv": _CSV,
    "list_device_resets text/csv": _CSV,
    "ResetSummary": {
        "open": {
            "count": 3,
            "oldest_requested_at": "2026-10-12T09:30:00.000Z",
            "by_age": [
                {"from_seconds": 0, "to_seconds": 3_600, "count": 1},
                {"from_seconds": 3_600, "to_seconds": 86_400, "count": 0},
                {"from_seconds": 86_400, "to_seconds": 604_800, "count": 1},
                {"from_seconds": 604_800, "to_seconds": 2_592_000, "count": 0},
                {"from_seconds": 2_592_000, "to_seconds": None, "count": 1},
            ],
        },
        "finished": {"executed": 40, "failed": 1, "cancelled": 2, "superseded": 1},
    },
}
