"""Examples of jobs for the OpenAPI document, by the name of the model or of the operation."""

from __future__ import annotations

from typing import Any, Final

_DEVICE_ID: Final = "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
_COUNTS: Final = {
    "total": 812,
    "queued": 12,
    "delivered": 3,
    "executed": 240,
    "failed": 2,
    "cancelled": 0,
    "skipped": 5,
}
_JOB: Final[dict[str, Any]] = {
    "id": "job_01JD3N0A1B2C3D4E5F6G7H8J9Q",
    "name": "Recall 12",
    "reason": "Recall of batch 12",
    "action": {"type": "factory_reset", "params": {"recordings": "keep"}, "ttl_seconds": None},
    "status": "running",
    "counts": _COUNTS,
    "pace": {"per_minute": 600, "ramp": {"from_per_minute": 10, "double_after": 60}},
    "abort": {"failed_percent": 5, "min_done": 20},
    "created_by": "key_01JD3M0000000000000000000B",
    "created_by_name": "backend",
    "created_at": "2026-11-20T08:16:00.000Z",
    "start_at": None,
    "started_at": "2026-11-20T08:16:00.000Z",
    "paused_at": None,
    "finished_at": None,
    "aborted_because": None,
    "rate_per_minute": 160,
}
_SKIPPED: Final = {
    "device_id": "dev_01JD3M0000000000000000000D",
    "serial_number": None,
    "outcome": "skipped",
    "reason": "not_found",
    "command_id": None,
    "changed_at": "2026-11-20T08:16:00.000Z",
}
_EXECUTED: Final = {
    "device_id": _DEVICE_ID,
    "serial_number": "BP-000123",
    "outcome": "executed",
    "reason": None,
    "command_id": "cmd_01JD3N0A1B2C3D4E5F6G7H8J9K",
    "changed_at": "2026-11-20T08:16:03.000Z",
}

JOB_EXAMPLES: Final[dict[str, Any]] = {
    "Job": _JOB,
    "create_job 201": _JOB
    | {"counts": dict.fromkeys(_COUNTS, 0) | {"total": 812, "skipped": 5}, "rate_per_minute": 10},
    "pause_job": _JOB | {"status": "paused", "paused_at": "2026-11-20T08:20:00.000Z", "rate_per_minute": None},
    "cancel_job": _JOB | {"status": "cancelled", "finished_at": "2026-11-20T08:20:00.000Z", "rate_per_minute": None},
    "JobList": {"data": [_JOB], "has_more": False, "next_cursor": None},
    "JobDeviceList": {"data": [_EXECUTED, _SKIPPED], "has_more": False, "next_cursor": None},
    "JobProgress": {
        "data": [
            {"at": "2026-11-20T08:16:00.000Z", "done": 31, "failed": 0},
            {"at": "2026-11-20T08:17:00.000Z", "done": 60, "failed": 2},
        ]
    },
    "JobPreview": {
        "total": 2,
        "counts": {"would_queue": 1, "not_found": 1},
        "waits": {"offline": 1, "never_seen": 0, "bluetooth_only": 0},
        "devices": [
            {"device_id": _DEVICE_ID, "outcome": "would_queue", "reason": None},
            {"device_id": _SKIPPED["device_id"], "outcome": "skipped", "reason": "not_found"},
        ],
        "has_more": False,
    },
}
JOB_ERRORS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "confirmation_needed",
        "confirm_count: is missing, and this job has 812 targets. Nothing was done.",
        {"field": "confirm_count", "count": 812},
    ),
    ("job_not_running", "This job is paused. Only a running job can be paused.", {"status": "paused"}),
    ("job_not_paused", "This job is running. Only a paused job can be resumed.", {"status": "running"}),
    ("job_final", "This job is completed. Nothing of it can be taken back.", {"status": "completed"}),
)
"""Code, message and details of its errors."""
