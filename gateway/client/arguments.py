"""Keyword arguments that several calls of the client share."""

from __future__ import annotations

from typing import Any, Literal, TypedDict
from urllib.parse import quote

Json = dict[str, Any]


class DeviceFilters(TypedDict, total=False):
    """Which devices, and in which order."""

    sort: Literal["created_at", "updated_at", "serial_number", "name"]
    order: Literal["asc", "desc"]
    status: Literal["bound", "unbound"]
    end_user_id: str
    model: str
    serial_number: str
    connection: Literal["online", "offline"]
    seen: bool
    condition: Literal["low_battery", "storage_full", "reset_pending"]
    search: str
    tag: list[str]


class DeviceChanges(TypedDict, total=False):
    """What is to be changed of a device; what is left out stays, None clears."""

    name: str | None
    firmware_version: str | None
    metadata: Json | None
    settings: Json
    tags: list[str]
    add_tags: list[str]
    remove_tags: list[str]


class ResetFilters(TypedDict, total=False):
    """Which resets, and in which order."""

    status: Literal["open", "executed", "failed", "cancelled", "superseded"]
    since: str
    until: str
    time: Literal["requested_at", "finished_at"]
    order: Literal["asc", "desc"]


class EventFilters(TypedDict, total=False):
    """Which events: by whom, and when."""

    actor: str
    since: str
    until: str


class JobOptions(TypedDict, total=False):
    """What may be said of a new job besides its name, action and targets."""

    reason: str
    start_at: str
    pace: Json
    abort: Json | None
    confirm_count: int


class WebhookChanges(TypedDict, total=False):
    """What is to be changed of a webhook; what is left out stays."""

    url: str
    events: list[str]
    description: str | None
    enabled: bool


def path(*parts: str) -> str:
    """Return a path of the API; ids are quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def given(**arguments: Any) -> Json:
    """Return the arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def in_query(arguments: Json) -> dict[str, str | list[str]]:
    """Return parameters as a query has them; those that are lists come once for each member."""
    return {
        name: [_text(each) for each in value] if isinstance(value, list) else _text(value)
        for name, value in arguments.items()
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
