"""Examples of the export and the erasure of a person."""

from __future__ import annotations

import json
from typing import Any, Final

_DEVICE_ID: Final = "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
_EXPORT: Final = (
    {
        "kind": "end_user",
        "end_user_id": "eu_42",
        "project_id": "proj_01JD3M0000000000000000000A",
        "exported_at": "2026-11-20T09:00:00.000Z",
    },
    {
        "kind": "binding",
        "device_id": _DEVICE_ID,
        "binding_generation": 1,
        "bound_at": "2026-11-20T08:00:00.000Z",
        "unbound_at": None,
    },
    {"kind": "end", "counts": {"binding": 1}},
)
_COUNTS: Final = {
    "bindings": 1,
    "heartbeats": 86_400,
    "states": 1,
    "events": 3,
    "deliveries": 2,
    "commands": 4,
    "answers": 1,
    "refused_messages": 0,
}
_MENTION: Final = {"field": "device.metadata", "id": _DEVICE_ID}

END_USER_EXAMPLES: Final[dict[str, Any]] = {
    "export_end_user": "".join(f"{json.dumps(each)}\n" for each in _EXPORT),
    "Erasure": {
        "status": "finished",
        "pseudonym": "eu_erased5f0c1d9a4b7e83624d10c2a97be6f318",
        "counts": _COUNTS,
        "open_resets": [],
        "mentions": [_MENTION],
        "has_more_mentions": False,
    },
    "ErasureCounts": _COUNTS,
    "Mention": _MENTION,
}
