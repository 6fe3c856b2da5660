"""Examples of what a gateway says of itself for the OpenAPI document, by the name of the model or of the operation."""

from __future__ import annotations

from typing import Any, Final

_READY: Final[dict[str, Any]] = {
    "ready": True,
    "broker": {"kind": "external", "connected": True, "reconciled": True, "mqtt_version": "5", "error": None},
    "access": {"managed_by": "mosquitto", "error": None},
    "gateway": {"id": "gw_01JD3M0000000000000000000A", "alone": False},
    "registry": {"error": None},
    "leases": [
        {
            "name": name,
            "held": True,
            "owner": "gw_01JD3M0000000000000000000A",
            "epoch": 3,
            "age_seconds": 4711,
            "error": None,
        }
        for name in ("broker:default", "fleet")
    ],
    "brokers": [
        {
            "id": "default",
            "owner": "gw_01JD3M0000000000000000000A",
            "connected": True,
            "followed": True,
            "outbox": 0,
        }
    ],
    "outbox": {"depth": 0, "at_least": False, "oldest_seconds": 0},
    "certificates": [{"listener": "http", "expires_at": "2027-10-21T08:30:00.000Z", "error": None}],
}
GATEWAY_EXAMPLES: Final[dict[str, Any]] = {
    "Health": {"status": "healthy", "database": "connected", "billing": "disabled"},
    "get_health 503": {"status": "unhealthy", "database": "disconnected", "billing": "disabled"},
    "Readiness": _READY,
    "get_readiness 503": _READY
    | {
        "ready": False,
        "broker": {
            "kind": "external",
            "connected": False,
            "reconciled": False,
            "mqtt_version": None,
            "error": "Connection refused",
        },
        "registry": {"error": None},
        "outbox": {"depth": 2, "at_least": False, "oldest_seconds": 41},
    },
}
