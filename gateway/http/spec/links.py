"""Which call may come next, for the OpenAPI document: what one answers is what the other asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Parameters = Mapping[str, str]
"""Parameters of the next call, each with where its value is found (a runtime expression of OpenAPI)."""

_ID: Final = "$response.body#/id"
_FIRST: Final = "$response.body#/data/0/id"
_DEVICE: Final = {"device_id": _ID}
_SAME_DEVICE: Final = {"device_id": "$request.path.device_id"}
_COMMAND: Final = {"device_id": "$response.body#/device_id", "command_id": _ID}
_JOB: Final = {"job_id": _ID}
_WEBHOOK: Final = {"webhook_id": _ID}


def _all(parameters: Parameters, *operations: str) -> dict[str, Parameters]:
    return dict.fromkeys(operations, parameters)


NEXT: Final[Mapping[str, Mapping[str, Parameters]]] = {
    "register_device": _all(_DEVICE, "get_device", "update_device", "bind_device", "delete_device"),
    "bind_device": _all(
        _DEVICE,
        "send_heartbeat",
        "list_pending_commands",
        "refresh_token",
        "create_command",
        "unbind_device",
        "reset_device",
    ),
    "unbind_device": _all(_DEVICE, "bind_device"),
    "list_device_resets": _all({**_SAME_DEVICE, "command_id": "$response.body#/data/0/command_id"}, "get_certificate"),
    "reset_device": _all(_DEVICE, "list_commands", "list_device_events", "send_heartbeat", "bind_device"),
    "delete_device": _all(_DEVICE, "restore_device"),
    "restore_device": _all(_DEVICE, "bind_device"),
    "send_heartbeat": _all(_SAME_DEVICE, "get_state", "list_heartbeats"),
    "list_pending_commands": _all({**_SAME_DEVICE, "command_id": _FIRST}, "acknowledge_command"),
    "create_command": _all(_COMMAND, "get_command", "acknowledge_command", "cancel_command", "delete_command"),
    "list_commands": _all({**_SAME_DEVICE, "command_id": _FIRST}, "get_command", "cancel_command"),
    "create_job": _all(
        _JOB, "get_job", "list_job_devices", "get_job_progress", "pause_job", "resume_job", "cancel_job"
    ),
    "create_webhook": _all(
        _WEBHOOK,
        "get_webhook",
        "update_webhook",
        "rotate_webhook_secret",
        "forget_previous_secret",
        "send_test_event",
        "list_deliveries",
        "delete_webhook",
    ),
    "list_deliveries": _all(
        {"webhook_id": "$request.path.webhook_id", "delivery_id": _FIRST},
        "replay_delivery",
    ),
}
"""By the operation that answers, the operations that may follow."""


def after(operation_id: str) -> dict[str, Any]:
    """The links of this operation's answer, as the document has them."""
    following = NEXT.get(operation_id, {})
    links = {name: {"operationId": name, "parameters": dict(given)} for name, given in following.items()}
    return {"links": links} if links else {}
