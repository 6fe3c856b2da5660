"""Examples for the OpenAPI document, by the name of the model or of the operation; a test holds them to the models."""

from __future__ import annotations

from typing import Any, Final

from gateway.core import csv_text
from gateway.http.spec.cell_examples import CELL_ERRORS, CELL_EXAMPLES
from gateway.http.spec.certificate_examples import CERTIFICATE_EXAMPLES
from gateway.http.spec.end_user_examples import END_USER_EXAMPLES
from gateway.http.spec.event_examples import EVENT_EXAMPLES
from gateway.http.spec.gateway_examples import GATEWAY_EXAMPLES
from gateway.http.spec.job_examples import JOB_ERRORS, JOB_EXAMPLES
from gateway.http.spec.reset_examples import RESET_EXAMPLES
from gateway.http.spec.sign_in_examples import SIGN_IN_EXAMPLES
from gateway.http.spec.webhook_examples import WEBHOOK_EXAMPLES
from gateway.models.device_settings import with_defaults
from gateway.models.devices import CSV_COLUMNS

_DEVICE_ID: Final = "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
_COMMAND_ID: Final = "cmd_01JD3N0A1B2C3D4E5F6G7H8J9K"
_RECORDING_STATE: Final[dict[str, Any]] = {
    "device_state": "idle",
    "pending_recordings": 2,
    "flags": 8,
    "connection_type": ["wifi"],
}
_DEVICE: Final[dict[str, Any]] = {
    "id": _DEVICE_ID,
    "project_id": "proj_01JD3M0000000000000000000A",
    "serial_number": "BP-000123",
    "model": "bota_pin",
    "name": "Ward 3, bed 2",
    "firmware_version": "1.4.2",
    "status": "bound",
    "end_user_id": "eu_42",
    "binding_generation": 3,
    "battery_percent": 81,
    "storage_used_mb": 512,
    "storage_total_mb": 8192,
    "signal_strength_dbm": -61,
    "last_heartbeat_at": "2026-11-20T08:15:00.000Z",
    "recording_state": _RECORDING_STATE,
    "device_name": "BotaPin-0123",
    "connection": "online",
    "tags": ["pilot", "ward-3"],
    "metadata": None,
    "settings": with_defaults({}),
    "created_at": "2026-11-19T10:00:00.000Z",
    "updated_at": "2026-11-20T08:00:00.000Z",
    "bound_at": "2026-11-20T08:00:00.000Z",
    "deleted_at": None,
}
_UNBOUND: Final = _DEVICE | {"status": "unbound", "end_user_id": None, "bound_at": None, "binding_generation": 4}
_NEW: Final = _UNBOUND | dict.fromkeys(
    (
        "battery_percent",
        "storage_used_mb",
        "storage_total_mb",
        "signal_strength_dbm",
        "last_heartbeat_at",
        "recording_state",
        "device_name",
    )
)
_PAYLOAD: Final[dict[str, Any]] = {
    "id": _COMMAND_ID,
    "type": "factory_reset",
    "params": {"recordings": "keep"},
    "binding_generation": 3,
    "created_at": "2026-11-20T08:16:00.000Z",
    "expires_at": None,
    "grant_token": "<JWT>",
}
_COMMAND: Final = _PAYLOAD | {
    "device_id": _DEVICE_ID,
    "status": "executed",
    "result": {
        "wiped": ["device_token", "pairing", "wifi_networks"],
        "kept": ["serial_number", "cellular_apn", "last_command_id"],
    },
    "error": None,
    "delivered_at": "2026-11-20T08:16:01.000Z",
    "executed_at": "2026-11-20T08:16:03.000Z",
}
_RECORDING: Final = _COMMAND | {
    "type": "start_recording",
    "status": "pending",
    "result": None,
    "expires_at": "2026-11-20T08:18:00.000Z",
    "delivered_at": None,
    "executed_at": None,
}
_JWK: Final[dict[str, Any]] = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "alg": "EdDSA",
    "use": "sig",
}
_MQTT: Final[dict[str, Any]] = {
    "host": "mqtt.example.com",
    "port": 8883,
    "tls": True,
    "username": _DEVICE_ID,
    "password": "<MQTT password>",
    "client_id": _DEVICE_ID,
    "topics": {
        "heartbeat": f"devices/{_DEVICE_ID}/heartbeat",
        "status": f"devices/{_DEVICE_ID}/status",
        "commands": {
            each: f"devices/{_DEVICE_ID}/commands/{each}"
            for each in (
                "factory_reset",
                "start_recording",
                "stop_recording",
                "trigger_upload",
                "reboot",
                "set_grant_key",
            )
        },
        "errors": f"devices/{_DEVICE_ID}/errors",
    },
}


def _error(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "details": details or {}}


_MISSING: Final = "is missing. It is required."

EXAMPLES: Final[dict[str, Any]] = {
    "get_metrics": "# HELP gateway_heartbeats_total Heartbeats, by outcome.\n"
    '# TYPE gateway_heartbeats_total counter\ngateway_heartbeats_total{outcome="stored"} 4711.0\n',
    "get_openapi": {"openapi": "3.1.0", "info": {"title": "Device gateway"}},
    "get_asyncapi": {"asyncapi": "3.0.0", "info": {"title": "Device gateway"}},
    "Device": _DEVICE,
    "register_device 200": _DEVICE,
    "register_device 201": _NEW | {"binding_generation": 0, "connection": "offline"},
    "unbind_device": _UNBOUND,
    "reset_device": _UNBOUND,
    "list_devices text/csv": "".join(
        map(csv_text.line, (CSV_COLUMNS, [(_DEVICE | {"tags": "pilot ward-3"})[name] for name in CSV_COLUMNS]))
    ),
    "DeviceList": {"data": [_DEVICE], "has_more": False, "next_cursor": None},
    "BoundDevice": _DEVICE | {"device_token": "<device token>", "mqtt": _MQTT, "grant_key": _JWK},
    "update_device": _DEVICE
    | {
        "name": "Ward 3, bed 4",
        "metadata": {"room": "3.12"},
        "settings": with_defaults({"audio": {"bitrate_kbps": 64}}),
        "updated_at": "2026-11-20T08:16:00.000Z",
    },
    "delete_device": _UNBOUND | {"connection": "offline", "deleted_at": "2026-11-20T08:16:00.000Z"},
    "restore_device": _UNBOUND | {"connection": "offline"},
    "DeviceStats": {
        "project_id": "proj_01JD3M0000000000000000000A",
        "total_count": 120,
        "online_count": 97,
        "offline_count": 20,
        "never_seen_count": 3,
        "low_battery_count": 4,
        "storage_full_count": 1,
        "pending_reset_count": 2,
        "is_exact": True,
    },
    "BulkCancelOutcomes": {
        "data": [
            {"id": _DEVICE_ID, "outcome": "cancelled", "error": None},
            {"id": "dev_01JD3M0000000000000000000E", "outcome": "too_late", "error": None},
        ]
    },
    "BulkOutcomes": {
        "data": [
            {"id": _DEVICE_ID, "outcome": "reset", "error": None},
            {
                "id": "dev_01JD3M0000000000000000000D",
                "outcome": "not_found",
                "error": {
                    "code": "not_found",
                    "message": "There is no device 'dev_01JD3M0000000000000000000D' in this project. Check the id, or "
                    "register the device with POST /v1/devices.",
                },
            },
        ]
    },
    "HeartbeatList": {
        "data": [
            {
                "received_at": "2026-11-20T08:15:00.214Z",
                "sent_at": "2026-11-20T08:15:00.000Z",
                "battery_percent": 81,
                "storage_used_mb": 512,
                "storage_total_mb": 8192,
                "signal_strength_dbm": -61,
                "firmware_version": "1.4.2",
                "device_state": "idle",
                "pending_recordings": 2,
                "flags": 8,
                "connection_type": ["wifi"],
                "hour": None,
            }
        ],
        "has_more": False,
        "next_cursor": None,
    },
    "RefreshedToken": {
        "device_token": "<device token>",
        "mqtt": {"host": "mqtt.example.com", "port": 8883, "tls": True, "password": "<MQTT password>"},
        "binding_generation": 3,
    },
    "DeviceHealth": {
        "device_id": _DEVICE_ID,
        "binding_generation": 3,
        "battery_percent": 81,
        "storage_used_mb": 512,
        "storage_total_mb": 8192,
        "signal_strength_dbm": -61,
        "recording_state": _RECORDING_STATE,
        "last_heartbeat_at": "2026-11-20T08:15:00.000Z",
        "last_seen_by": "wifi",
        "connection": "online",
    },
    **EVENT_EXAMPLES,
    "Command": _COMMAND,
    "create_command": _RECORDING,
    "cancel_command": _RECORDING | {"status": "cancelled"},
    "delete_command": _RECORDING | {"status": "cancelled"},
    "CommandList": {"data": [_COMMAND], "has_more": False, "next_cursor": None},
    "HeartbeatAnswer": {"status": "ok", "commands": [_PAYLOAD]},
    "PendingCommands": {"data": [_PAYLOAD | {"type": "start_recording", "expires_at": "2026-11-20T08:18:00.000Z"}]},
    "JwkSet": {"keys": [_JWK]},
    "KeyFacts": {
        "id": "key_01JD3M0000000000000000000B",
        "project_id": "proj_01JD3M0000000000000000000A",
        "project_name": "wards",
        "scopes": ["devices:read", "devices:write"],
    },
    **GATEWAY_EXAMPLES,
    **SIGN_IN_EXAMPLES,
    **CERTIFICATE_EXAMPLES,
    **RESET_EXAMPLES,
    **JOB_EXAMPLES,
    **CELL_EXAMPLES,
    **END_USER_EXAMPLES,
    **WEBHOOK_EXAMPLES,
}

ERRORS: Final[dict[str, dict[str, Any]]] = {
    each["code"]: each
    for each in (
        _error(
            "invalid_request",
            f"serial_number: {_MISSING}",
            {"field": "serial_number", "problems": [{"field": "serial_number", "message": _MISSING}]},
        ),
        _error("unauthorized", "No credential was sent. Send 'Authorization: Bearer KEY' with an API key."),
        _error(
            "insufficient_scope",
            "This API key lacks the scope devices:write. Use a key that has it.",
            {"required_scope": "devices:write"},
        ),
        _error("not_found", f"There is no device '{_DEVICE_ID}' in this project. Check the id."),
        _error(
            "not_acceptable",
            "Accept: names no media type that is offered here. Send one of application/json, text/csv, or leave it "
            "out.",
            {"field": "Accept", "offered": ["application/json", "text/csv"]},
        ),
        _error("payload_too_large", "The body is too large. Send at most 65536 bytes.", {"max_body_bytes": 65_536}),
        _error("unsupported_media_type", "The body should be JSON in UTF-8."),
        _error(
            "rate_limit_exceeded",
            "More than 600 requests within a minute. Wait 12 s, then send the same request again.",
            {"retry_after_seconds": 12},
        ),
        _error(
            "internal_error",
            "The gateway failed at this request. Its log has the reason under request id req_7: report that.",
            {"request_id": "req_7"},
        ),
        _error("service_unavailable", "The registry could not be written. Nothing was changed."),
        _error(
            "resource_already_exists",
            "A deleted device has this serial number. Restore it instead of registering it again.",
            {"id": _DEVICE_ID},
        ),
        _error(
            "device_already_bound",
            "The device is bound. Unbind it first, or reset it if it goes to someone else.",
            {"end_user_id": "eu_42", "bound_at": "2026-11-20T08:00:00.000Z"},
        ),
        _error("device_bound", "eu_42 still has 1 device(s). Reset or unbind them first.", {"devices": [_DEVICE_ID]}),
        _error(
            "command_pending",
            "A start_recording command of this device is still open. Wait for its end, or cancel it.",
            {"command_id": _COMMAND_ID, "status": "pending"},
        ),
        _error(
            "idempotency_mismatch",
            "This Idempotency-Key came with another request before. Nothing was done. Use a new key for a new request.",
        ),
        _error(
            "reset_pending",
            "A factory reset of this device is still open. Wait until the device has executed it, or cancel it.",
            {"command_id": _COMMAND_ID, "status": "pending"},
        ),
        _error(
            "command_final", "The command is executed already and stays so. Queue another one if more is to be done."
        ),
        *(_error(*each) for each in (*JOB_ERRORS, *CELL_ERRORS)),
        _error("webhook_limit_reached", "This project has 50 webhooks, which is the limit. Delete one.", {"limit": 50}),
        _error("webhook_disabled", "The webhook is switched off, so nothing is sent. Switch it on first."),
    )
}
