"""Examples of webhooks and deliveries for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

WEBHOOK_ID: Final = "wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AC"
DELIVERY_ID: Final = "dlv_01JD3N0A1B2C3D4E5F6G7H8J9N"
_EVENT_ID: Final = "evt_01JD3N0A1B2C3D4E5F6G7H8J9M"
_WEBHOOK: Final[dict[str, Any]] = {
    "id": WEBHOOK_ID,
    "url": "https://example.com/hooks/devices",
    "events": ["reset.completed", "reset.failed"],
    "description": "Returns desk",
    "enabled": True,
    "created_at": "2026-11-20T08:00:00.000Z",
    "rotated_at": None,
    "previous_secret_expires_at": None,
}
_DELIVERY: Final[dict[str, Any]] = {
    "id": DELIVERY_ID,
    "webhook_id": WEBHOOK_ID,
    "event_id": _EVENT_ID,
    "event_type": "reset.completed",
    "status": "pending",
    "attempts": 2,
    "response_status": 503,
    "error": "The receiver answered 503.",
    "next_attempt_at": "2026-11-20T08:21:04.000Z",
    "last_attempt_at": "2026-11-20T08:17:04.000Z",
    "created_at": "2026-11-20T08:16:03.000Z",
}
_TEST: Final[dict[str, Any]] = {
    "delivered": True,
    "response_status": 200,
    "response_body": "ok",
    "error": None,
    "duration_ms": 38,
    "event": {
        "id": _EVENT_ID,
        "type": "webhook.test",
        "created_at": "2026-11-20T08:16:00.000Z",
        "data": {"webhook_id": WEBHOOK_ID, "actor": "key_01JD3M0000000000000000000B"},
    },
}

WEBHOOK_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "Webhook": _WEBHOOK,
    "update_webhook": _WEBHOOK | {"enabled": False},
    "CreatedWebhook": _WEBHOOK | {"secret": "<webhook secret>"},
    "WebhookList": {"data": [_WEBHOOK], "has_more": False, "next_cursor": None},
    "WebhookTest": _TEST,
    "Delivery": _DELIVERY
    | {"status": "pending", "attempts": 0, "next_attempt_at": "2026-11-20T09:00:00.000Z", "error": None},
    "DeliveryList": {"data": [_DELIVERY], "has_more": False, "next_cursor": None},
}
