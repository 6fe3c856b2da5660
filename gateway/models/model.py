"""What travels: heartbeats, acknowledgements, commands, devices and the bodies of requests.

Whatever comes in is parsed here, once, from bytes into a frozen model; JSON types are taken at their word (no string
becomes a number). Unknown fields are refused except in heartbeats and statuses, which firmware may extend
(contract, sections 2 and 3).
"""

from __future__ import annotations

import enum
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from gateway.core import canonical_json, command_types, ids
from gateway.core.serial_numbers import serial_number
from gateway.core.visible_text import visible
from gateway.models.device_settings import ShownSettings
from gateway.models.validation import NO_NUL

MAX_NUMBER: Final = 2**53 - 1
MAX_NAME_UNITS: Final = 128
MAX_DOCUMENT_BYTES: Final = 16_384
MAX_METADATA_BYTES: Final = 8_192
"""A hundred devices with all that they may have fit into one answer of 1 MiB."""
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_NOT_RFC3339: Final = "should be a time by RFC 3339 with its zone, for example 2026-11-20T08:15:00Z"
_OUT_OF_RANGE: Final = "should lie in the years 1 to 9999 in UTC"
_FIRST_DAY: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST_DAY: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


CommandType = command_types.CommandType


class CommandStatus(enum.StrEnum):
    """Where a command stands; the last four are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXECUTED = "executed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can change it any more."""
        return self not in (CommandStatus.PENDING, CommandStatus.DELIVERED)


_ADMINISTRATIVE: Final = frozenset({"project", "key", "account", "signing_key", "webhook", "auth"})


class EventType(enum.StrEnum):
    """What can happen, as the audit trail calls it (contract, section 5; from ``acknowledgement.late`` on ours)."""

    DEVICE_REGISTERED = "device.registered"
    DEVICE_UPDATED = "device.updated"
    DEVICE_BOUND = "device.bound"
    DEVICE_UNBOUND = "device.unbound"
    DEVICE_DELETED = "device.deleted"
    DEVICE_RESTORED = "device.restored"
    DEVICE_ONLINE = "device.online"
    DEVICE_OFFLINE = "device.offline"
    DEVICE_LOW_BATTERY = "device.low_battery"
    DEVICE_STORAGE_FULL = "device.storage_full"
    RESET_REQUESTED = "reset.requested"
    RESET_DELIVERED = "reset.delivered"
    RESET_COMPLETED = "reset.completed"
    RESET_FAILED = "reset.failed"
    RESET_SUPERSEDED = "reset.superseded"
    COMMAND_CREATED = "command.created"
    COMMAND_DELIVERED = "command.delivered"
    COMMAND_EXECUTED = "command.executed"
    COMMAND_FAILED = "command.failed"
    COMMAND_EXPIRED = "command.expired"
    COMMAND_CANCELLED = "command.cancelled"
    TOKEN_REFRESHED = "token.refreshed"  # noqa: S105 - no password
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - no password
    ACKNOWLEDGEMENT_LATE = "acknowledgement.late"
    ACKNOWLEDGEMENT_REFUSED = "acknowledgement.refused"
    PROJECT_CREATED = "project.created"
    KEY_CREATED = "key.created"
    KEY_UPDATED = "key.updated"
    KEY_EXPIRING = "key.expiring"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    ACCOUNT_CREATED = "account.created"
    ACCOUNT_ROTATED = "account.rotated"
    ACCOUNT_REVOKED = "account.revoked"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_DELETED = "webhook.deleted"
    AUTH_REFUSED = "auth.refused"

    @property
    def is_of_device(self) -> bool:
        """Whether it happens to a device: only these events are published over MQTT."""
        return self.partition(".")[0] not in _ADMINISTRATIVE


class TokenState(enum.StrEnum):
    """What a device token opens (contract, section 1)."""

    ACTIVE = "active"
    RESET_ONLY = "reset_only"
    REVOKED = "revoked"


class Radio(enum.StrEnum):
    """The link over which a device was seen."""

    WIFI = "wifi"
    CELLULAR = "4g"
    BLE = "ble"


class DeviceState(enum.StrEnum):
    """What the firmware says it is doing."""

    IDLE = "idle"
    RECORDING = "recording"
    SYNCING = "syncing"
    UPLOADING = "uploading"
    CHARGING = "charging"
    LOW_BATTERY = "lowBattery"
    STORAGE_FULL = "storageFull"
    ERROR = "error"


class Flag(enum.IntFlag):
    """Bits of a heartbeat's ``flags``."""

    CHARGING = 1
    LOW_BATTERY = 2
    STORAGE_FULL = 4
    WIFI = 8
    LTE = 16
    SYNC = 32


# As plain numbers: arithmetic with an enum costs as much as all else that is done for a heartbeat.
CHARGED_AGAIN_PERCENT: Final = 5
ROOM_AGAIN: Final = 0.05
_LOW_BATTERY: Final = int(Flag.LOW_BATTERY)
_STORAGE_FULL: Final = int(Flag.STORAGE_FULL)
_WIFI: Final = int(Flag.WIFI)
_LTE: Final = int(Flag.LTE)
_OVER_WIFI: Final = str(Radio.WIFI)
_OVER_CELLULAR: Final = str(Radio.CELLULAR)


def _utf16_units(text: str) -> str:
    units = len(text.encode("utf-16-le")) // 2
    if units > MAX_NAME_UNITS:
        raise ValueError(f"should have at most {MAX_NAME_UNITS} UTF-16 units, has {units}")
    return text


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(_OUT_OF_RANGE) from error


def _bounded(document: dict[str, Any], limit: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    try:
        size = len(json.dumps(document, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise ValueError("should hold finite numbers only, no NaN and no Infinity") from error
    if size > limit:
        raise ValueError(f"should be at most {limit} bytes of JSON, is {size}")
    return document


def _signable(document: dict[str, Any]) -> dict[str, Any]:
    bounded = _bounded(document)
    try:
        canonical_json.params_digest(bounded)
    except ValueError as error:
        raise ValueError(
            f"should hold integers from {-MAX_NUMBER} to {MAX_NUMBER} and whole characters only, since devices check "
            "them by their canonical JSON; send anything else as a string"
        ) from error
    return bounded


def _metadata(document: dict[str, Any]) -> dict[str, Any]:
    return _bounded(document, MAX_METADATA_BYTES)


def _rfc3339(value: Any) -> Any:
    # Left to itself pydantic takes numbers, and strings of digits, for seconds since the epoch.
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC3339.fullmatch(value)):
        raise ValueError(_NOT_RFC3339)
    return value


class _InJson:
    """The same for a time in JSON, without a call of Python for each heartbeat; it stays in the zone that it names."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        time = core_schema.chain_schema(
            [
                core_schema.str_schema(pattern=f"^{_RFC3339.pattern}$", strict=True),
                core_schema.datetime_schema(tz_constraint="aware", strict=False),
            ]
        )
        told = core_schema.custom_error_schema(time, "rfc3339", custom_error_message=_NOT_RFC3339)
        bound = core_schema.datetime_schema(ge=_FIRST_DAY, le=_LAST_DAY)
        bounded = core_schema.custom_error_schema(bound, "out_of_range", custom_error_message=_OUT_OF_RANGE)
        return core_schema.json_or_python_schema(core_schema.chain_schema([told, bounded]), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class _Words:
    """Members of an enum as the plain strings that they are: SQLite and comparisons are several times as fast."""

    def __init__(self, words: type[enum.StrEnum]) -> None:
        self._words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema([str(word) for word in self._words])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(TypeAdapter(self._words).core_schema)


Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Label = Annotated[Text, StringConstraints(min_length=1, max_length=128)]
Name = Annotated[Text, AfterValidator(visible), AfterValidator(_utf16_units)]
SerialNumber = Annotated[Label, AfterValidator(serial_number)]
Version = Annotated[Text, StringConstraints(max_length=32)]
VisibleVersion = Annotated[Version, AfterValidator(visible)]
"""A version that a person sets; that of a heartbeat is checked for a NUL alone, since every heartbeat would pay."""
DeviceId = Annotated[str, StringConstraints(pattern=f"^{ids.DEVICE}{ids.BODY}$")]
EventId = Annotated[str, StringConstraints(pattern=f"^{ids.EVENT}{ids.BODY}$")]
EndUserId = Annotated[str, StringConstraints(pattern=f"^{ids.END_USER}{ids.BODY}$")]
Document = Annotated[dict[str, Any], AfterValidator(_bounded)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Params = Annotated[dict[str, Any], AfterValidator(_signable)]
Instant = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339), AfterValidator(_in_utc), _InJson()]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Bounds stand at the members of the union: those of a union are checked in Python, and an integer should stay one.
_PERCENT: Final = Field(ge=0, le=100)
_MEGABYTES: Final = Field(ge=0, le=MAX_NUMBER)
_DBM: Final = Field(ge=-200, le=0)
# pydantic's own JSON Schema of a union leaves its bounds out.
Percent = Annotated[
    Annotated[int, _PERCENT] | Annotated[Finite, _PERCENT],
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
Megabytes = Annotated[
    Annotated[int, _MEGABYTES] | Annotated[Finite, _MEGABYTES],
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_NUMBER}),
]
Dbm = Annotated[
    Annotated[int, _DBM] | Annotated[Finite, _DBM], WithJsonSchema({"type": "number", "minimum": -200, "maximum": 0})
]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
CreatedAt = Annotated[str, Field(description="When it was created.")]
PageSize = Annotated[int, Field(ge=1, le=100, description="Maximum number of items to return.")]
Cursor = Annotated[Label | None, Field(description="`next_cursor` of the previous page. Omit it for the first page.")]
NextCursor = Annotated[str | None, Field(description="The `cursor` of the next page; null on the last page.")]
HasMore = Annotated[bool, Field(description="Whether there is another page.")]


class Inbound(BaseModel):
    """Base of what comes in: frozen, strict, unknown fields refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class LastCommand(Inbound):
    """What a device says of the last command it kept outside of what a reset wipes."""

    model_config = ConfigDict(extra="ignore")

    command_id: Label = Field(description="The id of the command.")
    status: Literal["delivered", "executed", "failed"] = Field(description="The outcome of the command.")
    receipt: Annotated[Label | None, Field(description="Made when the command was executed, and kept since.")] = None


class Heartbeat(Inbound):
    """How a device is. Every field is optional, unknown ones are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "battery_percent": 81,
                    "storage_used_mb": 512,
                    "storage_total_mb": 8192,
                    "signal_strength_dbm": -61,
                    "firmware_version": "1.4.2",
                    "device_state": "idle",
                    "pending_recordings": 2,
                    "flags": 8,
                    "connection_type": ["wifi"],
                    "sent_at": "2026-11-20T08:15:00Z",
                }
            ]
        },
    )

    battery_percent: Annotated[Percent | None, Field(description="Charge in percent.")] = None
    storage_used_mb: Annotated[Megabytes | None, Field(description="Megabytes.")] = None
    storage_total_mb: Annotated[Megabytes | None, Field(description="Megabytes.")] = None
    signal_strength_dbm: Annotated[Dbm | None, Field(description="dBm.")] = None
    firmware_version: Annotated[Version | None, Field(description="Replaces the one that the registry has.")] = None
    device_name: Annotated[
        Annotated[Text, StringConstraints(max_length=64)] | None,
        Field(description="The name that the device gives itself. It never changes `name`."),
    ] = None
    device_state: Annotated[
        Annotated[str, _Words(DeviceState)] | None, Field(description="What the device is doing.")
    ] = None
    pending_recordings: Annotated[Count | None, Field(description="Recordings that wait to be uploaded.")] = None
    flags: Annotated[int | None, Field(ge=0, le=255, description="Bits: see the contract, section 3.")] = None
    connection_type: Annotated[
        Annotated[list[Annotated[str, _Words(Radio)]], Field(max_length=8)] | None,
        Field(description="The links it uses, the one in use first."),
    ] = None
    sent_at: Annotated[Instant | None, Field(description="By the device's clock; RFC 3339.")] = None
    last_command: Annotated[
        LastCommand | None, Field(description="The last command that the device remembers, with what became of it.")
    ] = None

    @property
    def radio(self) -> str | None:
        """The link it came over (a :class:`Radio`), as far as the device says: its list first, then its flags."""
        if self.connection_type:
            return self.connection_type[0]
        if self.flags is None:
            return None
        if self.flags & _WIFI:
            return _OVER_WIFI
        return _OVER_CELLULAR if self.flags & _LTE else None


def storage_full(state: str | None, flags: int) -> bool:
    """Whether a device that says this has no room left."""
    return state == DeviceState.STORAGE_FULL or bool(flags & _STORAGE_FULL)


def room_again(used_mb: float, total_mb: float) -> bool:
    """Whether a storage that was full has room again: :data:`ROOM_AGAIN` of it, so that it does not flap."""
    return used_mb <= total_mb * (1 - ROOM_AGAIN)


def low_battery(
    state: str | None, flags: int, charge_percent: float | None, threshold_percent: float, *, was_low: bool
) -> bool:
    """Whether a device says so, or its charge is at or below the threshold.

    One that ``was_low`` is so until its charge is :data:`CHARGED_AGAIN_PERCENT` above the threshold.
    """
    if state == DeviceState.LOW_BATTERY or flags & _LOW_BATTERY:
        return True
    if charge_percent is None:
        return False
    well_again = min(threshold_percent + CHARGED_AGAIN_PERCENT, 100)
    return charge_percent <= threshold_percent or (was_low and charge_percent < well_again)


class Status(Inbound):
    """A device's birth or last will."""

    model_config = ConfigDict(extra="ignore")

    status: Literal["online", "offline"] = Field(description="`online`, or `offline`, which is also the last will.")


class AckError(Inbound):
    """Why a device did not do what it was told."""

    code: Annotated[Label, StringConstraints(max_length=64)] = Field(
        description="An error code of the firmware, such as `stale_generation`."
    )
    message: Annotated[Text, StringConstraints(max_length=512), Field(description="For people.")] = ""


class Ack(Inbound):
    """What a device says of a command (contract, section 3)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "command_id": "cmd_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
                    "status": "executed",
                    "result": {
                        "wiped": ["device_token", "pairing", "wifi_networks"],
                        "kept": ["serial_number", "cellular_apn", "last_command_id"],
                    },
                    "receipt": "3q2-7w8Zt1Yp0uXkWm4sRj6nHb9cVd5fGa2eLo8iTzE",
                }
            ]
        }
    )

    command_id: Label = Field(description="The id of the command.")
    status: Literal["delivered", "executed", "failed"] = Field(
        description="`delivered` as soon as the device has it, then `executed` or `failed`."
    )
    result: Annotated[
        Document | None, Field(description="Any JSON object up to 16 KiB. Of a reset: `wiped` and `kept`, two lists.")
    ] = None
    error: Annotated[AckError | None, Field(description="With `failed`: why.")] = None
    receipt: Annotated[
        Label | None,
        Field(
            description="The device's own word: base64url(HMAC-SHA256(SHA-256(token), "
            "`command_id|status|binding_generation`))."
        ),
    ] = None


class CommandAck(Inbound):
    """The same over HTTP, where the path names the command."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "delivered", "receipt": "Xm4sRj6nHb9cVd5fGa2eLo8iTzE3q2-7w8Zt1Yp0ukW"}]
        }
    )

    status: Literal["delivered", "executed", "failed"] = Field(
        description="`delivered` as soon as the device has it, then `executed` or `failed`."
    )
    command_id: Annotated[Label | None, Field(description="Optional: the path names the command.")] = None
    result: Annotated[
        Document | None, Field(description="Any JSON object up to 16 KiB. Of a reset: `wiped` and `kept`, two lists.")
    ] = None
    error: Annotated[AckError | None, Field(description="With `failed`: why.")] = None
    receipt: Annotated[
        Label | None,
        Field(
            description="The device's own word: base64url(HMAC-SHA256(SHA-256(token), "
            "`command_id|status|binding_generation`))."
        ),
    ] = None


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


class BindDevice(Inbound):
    """Body of ``POST /devices/{id}/bind``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"end_user_id": "eu_42"}]})

    end_user_id: EndUserId = Field(description="Whose the device becomes: an id of your own that begins with `eu_`.")
    supersede_reset: bool = Field(default=False, description="Cancel an open reset and bind all the same.")


class Empty(Inbound):
    """Body of a call that takes none; ``{}`` is as good as nothing."""


class CreateCommand(Inbound):
    """Body of ``POST /devices/{id}/commands``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "start_recording", "ttl_seconds": 120}]})

    type: CommandType = Field(description="The type of the command.")
    params: Annotated[
        Params | None,
        Field(
            description="Arguments of the command, by its type: any JSON object up to 16 KiB; integers within 2^53 - 1."
        ),
    ] = None
    ttl_seconds: Annotated[int, Field(ge=1, le=86_400, description="Seconds until it expires, a day at most.")] = 300
    idempotency_key: Annotated[
        Label | None,
        Field(
            description="A key of your choice. The same key and command again return the same command, as long as the"
            " key is kept."
        ),
    ] = None


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
        int, Field(ge=0, le=MAX_NUMBER, description="How many to leave out from the beginning. Not with `cursor`.")
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
    condition: Annotated[
        Literal["low_battery", "storage_full", "reset_pending"] | None,
        Field(description="Only those that `GET /v1/devices/stats` counts as such."),
    ] = None
    search: Annotated[
        Label | None,
        Field(description="Only those with this text in id, serial number, name or end user; a-z as A-Z."),
    ] = None


class ListCommands(BaseModel):
    """Query of ``GET /devices/{id}/commands``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[CommandStatus | None, Field(description="Filter by command status.")] = None
    type: Annotated[CommandType | None, Field(description="Filter by command type.")] = None
    limit: PageSize = 20
    cursor: Cursor = None


class ListEvents(BaseModel):
    """Query of ``GET /devices/{id}/events``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: PageSize = 20
    cursor: Cursor = None


class ListProjectEvents(BaseModel):
    """Query of ``GET /events``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[EventType | None, Field(description="Filter by event type.")] = None
    device_id: Annotated[DeviceId | None, Field(description="Filter by device.")] = None
    limit: PageSize = 20
    cursor: Cursor = None


class StreamEvents(BaseModel):
    """Query of ``GET /events/stream``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[EventType | None, Field(description="Filter by event type.")] = None
    device_id: Annotated[DeviceId | None, Field(description="Filter by device.")] = None
    last_event_id: Annotated[
        EventId | None, Field(description="Where to go on; the header `Last-Event-ID` says the same and comes first.")
    ] = None


class Outbound(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(frozen=True)


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


class CommandPayload(Outbound):
    """A command as a device gets it, retained on its topic or in the answer to a heartbeat."""

    id: str = Field(description="`cmd_…`, for the acknowledgement.")
    type: CommandType = Field(description="The type of the command.")
    params: dict[str, Any] = Field(
        description="Arguments of the command, by its type: any JSON object up to 16 KiB; integers within 2^53 - 1."
    )
    binding_generation: int = Field(description="The device obeys if it holds a token of this generation.")
    created_at: CreatedAt
    expires_at: str | None = Field(description="When the command expires; null if it waits without a limit.")
    grant_token: str = Field(description="JWT (EdDSA) signed by the gateway; see the contract, section 3.")


class CommandError(Outbound):
    """Why a command failed."""

    code: str = Field(description="An error code of the firmware.")
    message: str = Field(description="The error text of the firmware.")


class Command(Outbound):
    """A command as the API shows it."""

    id: str = Field(description="`cmd_…`; ids sort by time.")
    device_id: str = Field(description="The id of the device.")
    type: CommandType = Field(description="The type of the command.")
    status: CommandStatus = Field(description="What the device has reported about the command, never what was sent.")
    params: dict[str, Any] = Field(
        description="Arguments of the command, by its type: any JSON object up to 16 KiB; integers within 2^53 - 1."
    )
    binding_generation: int = Field(
        description="The generation of the binding that it is meant for; a device of another refuses it."
    )
    grant_token: str = Field(
        description="JWT (EdDSA) by which a device sees that it is the gateway who asks, for what (`par`, a digest of"
        " the params), and that nothing later was asked before (`seq`)."
    )
    result: dict[str, Any] | None = Field(description="What the device reports about the result; null before.")
    error: CommandError | None = Field(description="Why it failed; null otherwise.")
    created_at: CreatedAt
    expires_at: str | None = Field(description="When the command expires; null if it waits without a limit.")
    delivered_at: str | None = Field(description="When the device reported that it has the command; null before.")
    executed_at: str | None = Field(description="When the device reported that it executed the command; null before.")


class MqttTopics(Outbound):
    """The topics a device may use."""

    heartbeat: str = Field(description="To publish, QoS 1, not retained.")
    status: str = Field(description="To publish, QoS 1, retained; the last will belongs here too.")
    commands: dict[str, str] = Field(description="One full topic per command type: subscribe to each by its name.")
    errors: str = Field(description="To subscribe: messages that were refused, and why.")


class MqttAccess(Outbound):
    """How a device reaches the broker; the password belongs to the device token, and is shown this once."""

    host: str = Field(description="Host name of the broker.")
    port: int = Field(description="TCP port of the broker.")
    tls: bool = Field(description="Whether the broker speaks TLS on this port.")
    username: str = Field(description="The MQTT user: the device's id.")
    password: str = Field(
        repr=False,
        description="The MQTT password: base64url(HMAC-SHA256(token, `mqtt`)) without padding. It lives and dies with"
        " the token.",
    )
    client_id: str = Field(description="The MQTT client id: the device's id.")
    topics: MqttTopics = Field(description="The full names of the topics that the device may use.")


class Jwk(Outbound):
    """The public key that signs grants (RFC 8037)."""

    kty: Annotated[Literal["OKP"], Field(description="The key type (RFC 8037).")] = "OKP"
    crv: Annotated[Literal["Ed25519"], Field(description="The elliptic curve.")] = "Ed25519"
    x: str = Field(description="The public key, base64url.")
    kid: str = Field(description="The id of the key. The header of a grant names it.")
    alg: Annotated[Literal["EdDSA"], Field(description="The signature algorithm.")] = "EdDSA"
    use: Annotated[Literal["sig"], Field(description="The use of the key: signatures.")] = "sig"


class BoundDevice(Device):
    """A device just bound, with what its firmware needs to live; the token is shown this once."""

    device_token: str = Field(
        repr=False,
        description="The device's HTTP bearer, and what the key of its receipts is made of. The broker does not take "
        "it. It is shown this once.",
    )
    mqtt: MqttAccess = Field(description="Where the broker is, and what the device may publish and subscribe to.")
    grant_key: Jwk = Field(
        description="The public key that this device's commands are signed with, to keep on the device."
    )


class DeviceList(Outbound):
    """A page of devices."""

    data: list[Device] = Field(description="The page, in the order that was asked for.")
    has_more: HasMore
    next_cursor: NextCursor
    total: int | None = Field(
        default=None,
        description="How many devices pass the filters; only where `total=true` asks for it. Of a project with more "
        "than 100,000 devices the newest 100,000 are counted.",
    )
    total_is_exact: bool | None = Field(
        default=None,
        description="Whether `total` counts all devices of the project; false when it has more than 100,000, so that "
        "there may be more than `total`. Only with a total.",
    )


class CommandList(Outbound):
    """A page of commands, newest first."""

    data: list[Command] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class PendingCommands(Outbound):
    """The open commands of a device, oldest first."""

    data: list[CommandPayload] = Field(description="The open commands, oldest first.")


class Event(Outbound):
    """Something that happened, as the audit trail keeps it."""

    id: str = Field(description="`evt_…`; ids sort by time.")
    type: str = Field(description="What happened, such as `reset.completed`.")
    created_at: CreatedAt
    data: dict[str, Any] = Field(
        description="Facts of the event. `device_id`: the device, if it is about one. `actor`: the id of a key or a "
        "device, `gateway`, or `cli` for the command line. `actor_name`: the name of the key, or of the command line's "
        "user. `client_address`: the address of a request with an API key."
    )


class EventList(Outbound):
    """A page of events, newest first."""

    data: list[Event] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class HeartbeatAnswer(Outbound):
    """Answer to a heartbeat; ``commands`` only when a device token asks and some are open."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`: the heartbeat was stored.")] = "ok"
    commands: Annotated[
        list[CommandPayload] | None,
        Field(description="The open commands. Only for a device token, and only when there are some."),
    ] = None


class ErrorBody(Outbound):
    """What every error says."""

    code: str = Field(description="For programs: one of the codes that the operation names.")
    message: str = Field(description="For people: what is wrong, and what to do.")
    details: dict[str, Any] = Field(
        description="For programs: facts that belong to the code, such as the `field` that is wrong."
    )


class ErrorAnswer(Outbound):
    """The shape of every error."""

    error: ErrorBody = Field(description="The error.")


class JwkSet(Outbound):
    """Every public key that has signed grants (RFC 7517)."""

    keys: list[Jwk] = Field(description="The public keys, the one in use first.")


class KeyFacts(Outbound):
    """An API key as its holder may know it."""

    id: str = Field(description="`key_…`.")
    project_id: str = Field(description="The only project that the key opens.")
    project_name: str = Field(description="For people.")
    scopes: list[str] = Field(description="What it may do, such as `devices:read`.")


class Health(Outbound):
    """Whether the process serves and reaches its database."""

    status: Literal["healthy", "unhealthy"] = Field(description="`unhealthy` when the registry cannot be read.")
    database: Literal["connected", "disconnected"] = Field(description="Whether the registry can be read.")
    billing: Annotated[Literal["disabled"], Field(description="Always `disabled`.")] = "disabled"


class BrokerLink(Outbound):
    """How the link to the broker is."""

    kind: Literal["embedded", "mosquitto", "external"] = Field(
        description="`embedded`; `mosquitto`, run by the gateway itself; or `external`, run by somebody else."
    )
    connected: bool = Field(description="Whether the gateway has a session with the broker.")
    reconciled: bool = Field(description="Retained messages on the broker are the open commands of the registry.")
    mqtt_version: str | None = Field(description="The MQTT version of the session; null without a session.")
    error: str | None = Field(description="Why the gateway has no session; null when it has one.")


class BrokerAccess(Outbound):
    """Who steers accounts and live sessions at the broker."""

    managed_by: str = Field(description="`embedded`, `mosquitto`, or `none`: you manage the accounts at the broker.")
    error: str | None = Field(
        description="Why accounts are not in step now, or what the gateway cannot do about them; else null."
    )


class RegistryState(Outbound):
    """Whether the registry can be written."""

    error: str | None = Field(description="Why the last write failed, and what to do; null when it did not.")


class OutboxDepth(Outbound):
    """What has yet to reach the broker."""

    depth: int = Field(description="The number of changes that wait.")
    oldest_seconds: int = Field(description="How long the oldest change has waited, in seconds.")


class ListenerCertificate(Outbound):
    """What a listener with TLS shows its clients: ``http`` or ``mqtt``."""

    listener: str = Field(description="`http`, or `mqtt`: the embedded broker's.")
    expires_at: str = Field(description="When the certificate expires.")
    error: str | None = Field(
        description="Why the certificate is not valid, or why its successor was not loaded; otherwise null."
    )


class Readiness(Outbound):
    """Whether the gateway can do all of its work now, and the facts behind that."""

    ready: bool = Field(description="Whether every part is ready.")
    registry: RegistryState = Field(description="Whether the last write to the registry succeeded.")
    broker: BrokerLink = Field(description="The link to the broker.")
    access: BrokerAccess = Field(description="Accounts and sessions at the broker.")
    outbox: OutboxDepth = Field(description="Changes that have not reached the broker yet.")
    certificates: list[ListenerCertificate] = Field(
        description="The certificates that listeners present; empty where no listener speaks TLS."
    )
