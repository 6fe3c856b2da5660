"""Examples of events for the OpenAPI document, by the name of the model or of the operation."""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.core import csv_text
from gateway.store.event_list import CSV_COLUMNS

_KEY: Final = "key_01JD3M0000000000000000000B"
_FACTS: Final = {
    "command_id": "cmd_01JD3N0A1B2C3D4E5F6G7H8J9K",
    "end_user_id": "eu_42",
    "binding_generation": 4,
}
_EVENT: Final[dict[str, Any]] = {
    "id": "evt_01JD3N0A1B2C3D4E5F6G7H8J9M",
    "type": "reset.requested",
    "created_at": "2026-11-20T08:16:00.000Z",
    "data": {"device_id": "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB", "actor": _KEY, "actor_name": "backend", **_FACTS},
}
_ROW: Final = (
    *(_EVENT[name] for name in ("id", "created_at", "type")),
    *(_EVENT["data"][name] for name in ("device_id", "actor", "actor_name")),
    "192.0.2.7",
    json.dumps(_FACTS),
)

EVENT_EXAMPLES: Final[dict[str, Any]] = {
    "stream_events": f"id: {_EVENT['id']}\nevent: {_EVENT['type']}\ndata: {json.dumps(_EVENT)}\n\n",
    "EventList": {"data": [_EVENT], "has_more": False, "next_cursor": None},
    "list_events text/csv": "".join(map(csv_text.line, (CSV_COLUMNS, _ROW))),
    "ActorList": {
        "data": [
            {"actor": _KEY, "name": "backend", "last_event_at": _EVENT["created_at"]},
            {"actor": "cli", "name": "operator", "last_event_at": "2026-11-20T07:00:00.000Z"},
        ]
    },
}
