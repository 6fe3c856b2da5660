"""Devices: bodies, queries and answers of the registry (contract, section 2)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from gateway.models.device_settings import CHANGE_SCHEMA, ShownSettings
from gateway.models.fields import (
    CreatedAt,
    HasMore,
    Inbound,
    Label,
    Metadata,
    Name,
    NextCursor,
    Outbound,
    SerialNumber,
    Text,
    VisibleVersion,
)
from gateway.models.states import DeviceState, Radio
from gateway.models.tags import TagFilter, Tags

MAX_OFFSET: Final = 10_000
"""Each device that is left out is read, so a larger offset is refused."""


def _near(offset: int) -> int:
    if offset > MAX_OFFSET:
        raise ValueError(
            f"should be at most {MAX_OFFSET:,}, since each device that is left out is read; send the 'next_cursor' of "
            "a page as 'cursor' to go on from it, or narrow the list by a filter"
        )
    return offset


SettingsChange = Annotated[dict[str, Any], WithJsonSchema(CHANGE_SCHEMA)]


class RegisterDevice(Inbound):
    """Body of ``POST /devices``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"serial_number": "BP-000123", "model": "bota_pin", "name": "Ward 3, bed 2"}]}
    )

    serial_number: SerialNumber = Field(
        description="As it is printed on the device. There is one of each in a project. Characters as in `name`, kept"
        " in Unicode's normal form C; not of the form of an id (`dev_…`)."
    )
    model: Label | None = Field(default=None, description="One of the configured models; the first is the default.")
    name: Annotated[
        Name | None,
        Field(
            description="For people; at most 128 UTF-16 units. Blanks around it are trimmed; control, bidirectional "
            "and invisible characters are refused."
        ),
    ] = None
    firmware_version: Annotated[VisibleVersion | None, Field(description="The firmware version, if it is known.")] = (
        None
    )
    metadata: Annotated[Metadata | None, Field(description="Any JSON object of your own, up to 8 KiB.")] = None


class ListDevices(BaseModel):
    """Query of ``GET /devices``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1_000, description="Maximum number of items to return.")] = 25
    cursor: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=2_048)] | None,
        Field(
            description="`next_cursor` of the page before, with the same `sort` and `order`; the first page is asked "
            "for without."
        ),
    ] = None
    offset: Annotated[
        int,
        Field(
            ge=0,
            description="How many to leave out from the beginning, 10,000 at most: each is read. `cursor` goes on from "
            "any place at the cost of a page. Not with `cursor`.",
            json_schema_extra={"maximum": MAX_OFFSET},
        ),
        AfterValidator(_near),
    ] = 0
    sort: Annotated[
        Literal["created_at", "updated_at", "serial_number", "name"],
        Field(
            description="What the list is sorted by. Names: ASCII letters large or small, devices without one first."
        ),
    ] = "created_at"
    order: Annotated[
        Literal["asc", "desc"] | None,
        Field(description="Without it times come newest first, serial numbers and names in ascending order."),
    ] = None
    total: Annotated[bool, Field(description="Whether to count all that pass the filters, in `total`.")] = False
    status: Annotated[
        Literal["bound", "unbound"] | None, Field(description="Filter by binding: `bound` or `unbound`.")
    ] = None
    end_user_id: Annotated[Label | None, Field(description="Filter by end user.")] = None
    model: Annotated[Label | None, Field(description="Filter by model.")] = None
    serial_number: Annotated[Label | None, Field(description="Return only the device with this serial number.")] = None
    connection: Annotated[
        Literal["online", "offline"] | None, Field(description="Filter by connection: `online` or `offline`.")
    ] = None
    seen: Annotated[
        bool | None,
        Field(
            description="Whether the device was ever heard. `connection=offline&seen=true` finds what `offline_count` "
            "of `GET /v1/devices/stats` counts, `seen=false` what `never_seen_count` counts."
        ),
    ] = None
    tag: TagFilter = Field(default_factory=list)
    condition: Annotated[
        Literal["low_battery", "storage_full", "reset_pending"] | None,
        Field(description="Only those that `GET /v1/devices/stats` counts as such."),
    ] = None
    search: Annotated[
        Label | None,
        Field(
            description="Only those with this text in id, serial number, name, tags or end user; a-z as A-Z. A text of "
            "one or two characters: only those whose serial number, name or a tag begins with it."
        ),
    ] = None


class RecordingState(Outbound):
    """What a device said of its work: in each field the newest that it said."""

    device_state: DeviceState | None = Field(description="What the device is doing.")
    pending_recordings: int | None = Field(description="Recordings that wait to be uploaded.")
    flags: int | None = Field(description="Bits: 1 charging, 2 low battery, 4 storage full, 8 WiFi, 16 LTE, 32 sync.")
    connection_type: list[Radio] = Field(
        description="The links it uses, the one in use first; empty until the device lists them."
    )


class Device(Outbound):
    """A device as the API shows it. Times are RFC 3339 in UTC."""

    id: str = Field(description="`dev_…`; ids sort by time.")
    project_id: str = Field(description="The project that it belongs to.")
    serial_number: str = Field(
        description="As it is printed on the device. There is one of each in a project. Characters as in `name`, kept"
        " in Unicode's normal form C; not of the form of an id (`dev_…`)."
    )
    model: str = Field(description="One of the models that this gateway is configured for.")
    name: str | None = Field(
        description="For people; at most 128 UTF-16 units. Blanks around it are trimmed; control, bidirectional and "
        "invisible characters are refused."
    )
    firmware_version: str | None = Field(
        description="The version that the device last reported, or that was set over the API."
    )
    status: Literal["bound", "unbound"] = Field(description="`bound` to an end user, or `unbound`.")
    end_user_id: str | None = Field(
        description="Whose the device is: an id of your own that begins with `eu_`; null while it is unbound."
    )
    binding_generation: int = Field(description="Rises by one at each bind, unbind and reset.")
    battery_percent: int | float | None = Field(description="Charge in percent.")
    storage_used_mb: int | float | None = Field(description="In megabytes.")
    storage_total_mb: int | float | None = Field(description="In megabytes.")
    signal_strength_dbm: int | float | None = Field(description="In dBm.")
    last_heartbeat_at: str | None = Field(description="When the last heartbeat came, by the gateway's clock.")
    recording_state: RecordingState | None = Field(
        description="What the device last said of its work; null until it said any of it."
    )
    device_name: str | None = Field(
        description="The name that the device gives itself; null until it said one. It never changes `name`."
    )
    connection: Literal["online", "offline"] = Field(
        description="`offline` after three missed heartbeats, or soon after the device's offline message or last will."
    )
    tags: list[str] = Field(description="For groups of devices: up to 32, in the order of their characters.")
    metadata: dict[str, Any] | None = Field(
        description="Any JSON object of your own, up to 8 KiB; null until it is set."
    )
    settings: ShownSettings = Field(description="Everything that can be set on the device, defaults included.")
    created_at: CreatedAt
    updated_at: str = Field(description="When anything but its health was last changed.")
    bound_at: str | None = Field(description="When the device was bound; null while it is unbound.")
    deleted_at: str | None = Field(description="When the device was deleted; null if it was not.")


class DeviceHealth(Outbound):
    """How a device is: the newest it said of itself, and whether it is there. Times are RFC 3339 in UTC."""

    device_id: str = Field(description="The id of the device.")
    binding_generation: int = Field(description="Rises by one at each bind, unbind and reset.")
    battery_percent: int | float | None = Field(description="Charge in percent.")
    storage_used_mb: int | float | None = Field(description="In megabytes.")
    storage_total_mb: int | float | None = Field(description="In megabytes.")
    signal_strength_dbm: int | float | None = Field(description="In dBm.")
    recording_state: RecordingState | None = Field(
        description="What the device last said of its work; null until it said any of it."
    )
    last_heartbeat_at: str | None = Field(description="When the last heartbeat came, by the gateway's clock.")
    last_seen_by: Radio | None = Field(
        description="The link over which the device last reported; null if the device did not say."
    )
    connection: Literal["online", "offline"] = Field(
        description="`offline` after three missed heartbeats, or soon after the device's offline message or last will."
    )


class DeviceList(Outbound):
    """A page of devices."""

    data: list[Device] = Field(description="The page, in the order that was asked for.")
    has_more: HasMore
    next_cursor: NextCursor
    total: int | None = Field(
        default=None,
        description="How many devices pass the filters; only where `total=true` asks for it. A lower bound where "
        "`total_is_exact` is false: then at most 10,000 devices were looked at.",
    )
    total_is_exact: bool | None = Field(
        default=None,
        description="Whether `total` counts all devices that pass. False where each filter leaves more than 10,000 "
        "devices and the number is not kept, so that there may be more than `total`. Only with a total.",
    )


CSV_COLUMNS: Final = tuple(name for name in Device.model_fields if name not in ("recording_state", "settings"))
"""The columns of a list of devices as CSV."""
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
    tags: Tags = Field(
        default_factory=list, description="Replaces all tags; `[]` removes them. Not with `add_tags` or `remove_tags`."
    )
    add_tags: Tags = Field(default_factory=list, description="Tags to add; those that the device has stay.")
    remove_tags: Tags = Field(default_factory=list, description="Tags to remove; those that it lacks do no harm.")
    settings: SettingsChange = Field(
        default_factory=dict, description="Merged deeply into what is set; lists are replaced as a whole."
    )


class CountDevices(BaseModel):
    """Query of ``GET /devices/stats``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: TagFilter = Field(default_factory=list)


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
    is_exact: bool = Field(
        description="False with a `tag` that more than 100,000 devices have: its newest 100,000 are counted. With "
        "several, that of the rarest counts."
    )
