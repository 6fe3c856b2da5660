"""Bodies, queries and answers of what is done to many devices, or to a device over its life (contract, section 2)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gateway.models.device_settings import CHANGE_SCHEMA
from gateway.models.model import (
    DeviceState,
    HasMore,
    Inbound,
    Instant,
    Label,
    Metadata,
    Name,
    NextCursor,
    Outbound,
    Radio,
    VisibleVersion,
)

MOST_DEVICES: Final = 1_000
MOST_HEARTBEATS: Final = 1_000
CURSOR: Final = r"^[0-9]{1,15}\.[0-9]{1,18}$"
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(text: object) -> object:
    if not isinstance(text, str) or _RFC3339.fullmatch(text) is None:
        raise ValueError("should be RFC 3339 with a time zone, such as 2026-11-20T08:15:00Z (in a query a + is %2B)")
    return text


Moment = Annotated[Instant, BeforeValidator(_rfc3339)]
SettingsChange = Annotated[dict[str, Any], WithJsonSchema(CHANGE_SCHEMA)]


_CHANGE: Final[dict[str, Any]] = {
    "name": "Ward 3, bed 4",
    "metadata": {"room": "3.12", "returned": None},
    "settings": {"audio": {"bitrate_kbps": 64}, "upload": {"off_peak_hours": None}},
}


def _partial(schema: dict[str, Any]) -> None:
    """Tell no defaults: a client that filled them in would clear what it means to leave alone."""
    for field in schema["properties"].values():
        field.pop("default", None)
    schema["examples"] = [_CHANGE]


class UpdateDevice(Inbound):
    """Body of ``PATCH /devices/{id}``: what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra=_partial)

    name: Annotated[Name | None, Field(description="At most 128 UTF-16 units; null clears it.")] = None
    firmware_version: Annotated[
        VisibleVersion | None, Field(description="Until the device says another; null clears it.")
    ] = None
    metadata: Annotated[
        Metadata | None,
        Field(
            description="Merged key by key into what is there: a value replaces the old one as a whole, null removes "
            "the key. Null instead of an object clears all of it."
        ),
    ] = None
    settings: SettingsChange = Field(
        default_factory=dict, description="Merged deeply into what is set; lists are replaced as a whole."
    )


class BulkReset(Inbound):
    """Body of ``POST /devices/bulk/reset``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_ids": ["dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"], "dry_run": True}]}
    )

    device_ids: Annotated[
        list[Label],
        Field(min_length=1, max_length=MOST_DEVICES, description="One that is there twice is reset once."),
    ]
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False


class BulkCancel(Inbound):
    """Body of ``POST /devices/bulk/reset/cancel``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_ids": ["dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"], "dry_run": True}]}
    )

    device_ids: Annotated[
        list[Label],
        Field(min_length=1, max_length=MOST_DEVICES, description="One that is there twice counts once."),
    ]
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False


class ListHeartbeats(BaseModel):
    """Query of ``GET /devices/{id}/heartbeats``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: Annotated[Moment | None, Field(description="Received then or later; RFC 3339.")] = None
    until: Annotated[Moment | None, Field(description="Received before then; RFC 3339.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_HEARTBEATS, description="Maximum number of items to return.")] = 100
    cursor: Annotated[str | None, Field(pattern=CURSOR, description="`next_cursor` of the page before.")] = None
    every: Annotated[
        int | None,
        Field(ge=1, le=86_400, description="Only the newest of each so many seconds of the clock: a curve of a month."),
    ] = None


class DeviceStats(Outbound):
    """How many devices of a project there are, and in what state; deleted ones do not count."""

    project_id: str = Field(description="The project of the API key.")
    total_count: int = Field(description="The number of all devices.")
    online_count: int = Field(description="Devices that are online now.")
    offline_count: int = Field(description="Devices that reported at least once and are offline now.")
    never_seen_count: int = Field(description="Devices that never reported. They do not count as offline.")
    low_battery_count: int = Field(description="By their last heartbeat, as are those whose storage is full.")
    storage_full_count: int = Field(description="Devices whose last heartbeat reported a full storage.")
    pending_reset_count: int = Field(description="A factory reset is open: not executed yet, failed or cancelled.")


class BulkError(Outbound):
    """Why nothing was done to a device."""

    code: str = Field(description="As a single reset of this device would have answered.")
    message: str = Field(description="For people: what is wrong, and what to do.")


class BulkOutcome(Outbound):
    """What became of one device of a bulk reset."""

    id: str = Field(description="The device, as it was named in the request.")
    outcome: Literal["reset", "already_pending", "not_found", "failed", "would_reset"] = Field(
        description="`would_reset` only with `dry_run`; `failed` when the gateway could not do it, see `error`."
    )
    error: BulkError | None = Field(description="Why nothing was done; null where it was.")


class BulkOutcomes(Outbound):
    """What became of each device, in the order in which they were named."""

    data: list[BulkOutcome] = Field(description="One for each device, in the order of the request.")


class BulkCancelOutcome(Outbound):
    """What became of the open reset of one device."""

    id: str = Field(description="The device, as it was named in the request.")
    outcome: Literal["cancelled", "too_late", "none_open", "not_found", "failed", "would_cancel"] = Field(
        description="`too_late`: the device has said that it has the reset; `would_cancel` only with `dry_run`; "
        "`failed` when the gateway could not do it, see `error`."
    )
    error: BulkError | None = Field(description="Why nothing was done; null when the reset was cancelled.")


class BulkCancelOutcomes(Outbound):
    """What became of each reset, in the order in which the devices were named."""

    data: list[BulkCancelOutcome] = Field(description="One for each device, in the order of the request.")


class HeartbeatRecord(Outbound):
    """A heartbeat as it was stored. Times are RFC 3339 in UTC; what it did not say is null."""

    received_at: str = Field(description="By the gateway's clock.")
    sent_at: str | None = Field(description="By the device's clock.")
    battery_percent: int | float | None = Field(description="Charge in percent.")
    storage_used_mb: int | float | None = Field(description="In megabytes.")
    storage_total_mb: int | float | None = Field(description="In megabytes.")
    signal_strength_dbm: int | float | None = Field(description="In dBm.")
    firmware_version: str | None = Field(description="The version that the device reported.")
    device_state: DeviceState | None = Field(description="What the device is doing.")
    pending_recordings: int | None = Field(description="Recordings that wait to be uploaded.")
    flags: int | None = Field(description="Bits: 1 charging, 2 low battery, 4 storage full, 8 WiFi, 16 LTE, 32 sync.")
    connection_type: list[Radio] | None = Field(description="The link it came over, as far as that is known.")


class HeartbeatList(Outbound):
    """A page of heartbeats, newest first."""

    data: list[HeartbeatRecord] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class RefreshedMqtt(Outbound):
    """What a new token changes of how a device reaches the broker."""

    password: str = Field(
        repr=False,
        description="The MQTT password: base64url(HMAC-SHA256(token, `mqtt`)) without padding. It lives and dies with"
        " the token.",
    )


class RefreshedToken(Outbound):
    """A new token of the same binding with its MQTT password, shown this once."""

    device_token: str = Field(
        repr=False,
        description="The device's HTTP bearer, and what the key of its receipts is made of. The broker does not take "
        "it. It is shown this once.",
    )
    mqtt: RefreshedMqtt = Field(description="What the new token changes of how the device reaches the broker.")
    binding_generation: int = Field(description="The generation of the binding, unchanged.")
