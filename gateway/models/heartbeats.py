"""Heartbeats and presence: what a device publishes, when its battery is low or its storage full, and the history."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.models.commands import CommandPayload
from gateway.models.fields import (
    Count,
    Dbm,
    HasMore,
    Inbound,
    Instant,
    Label,
    LiteralOf,
    Megabytes,
    NextCursor,
    Outbound,
    Percent,
    QueryInstant,
    Text,
    Version,
)
from gateway.models.states import DeviceState, Flag, Radio

CHARGED_AGAIN_PERCENT: Final = 5
ROOM_AGAIN: Final = 0.05
# As plain numbers: arithmetic with an enum costs as much as all else that is done for a heartbeat.
_LOW_BATTERY: Final = int(Flag.LOW_BATTERY)
_STORAGE_FULL: Final = int(Flag.STORAGE_FULL)
_WIFI: Final = int(Flag.WIFI)
_LTE: Final = int(Flag.LTE)
_OVER_WIFI: Final = str(Radio.WIFI)
_OVER_CELLULAR: Final = str(Radio.CELLULAR)


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
        Annotated[str, LiteralOf(DeviceState)] | None, Field(description="What the device is doing.")
    ] = None
    pending_recordings: Annotated[Count | None, Field(description="Recordings that wait to be uploaded.")] = None
    flags: Annotated[int | None, Field(ge=0, le=255, description="Bits: see the contract, section 3.")] = None
    connection_type: Annotated[
        Annotated[list[Annotated[str, LiteralOf(Radio)]], Field(max_length=8)] | None,
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


class HeartbeatAnswer(Outbound):
    """Answer to a heartbeat; ``commands`` only when a device token asks and some are open."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`: the heartbeat was stored.")] = "ok"
    commands: Annotated[
        list[CommandPayload] | None,
        Field(description="The open commands. Only for a device token, and only when there are some."),
    ] = None


MOST_HEARTBEATS: Final = 1_000
CURSOR: Final = r"^[0-9]{1,15}\.[0-9]{1,18}$"


class ListHeartbeats(BaseModel):
    """Query of ``GET /devices/{id}/heartbeats``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: Annotated[QueryInstant | None, Field(description="Received then or later; RFC 3339.")] = None
    until: Annotated[QueryInstant | None, Field(description="Received before then; RFC 3339.")] = None
    limit: Annotated[int, Field(ge=1, le=MOST_HEARTBEATS, description="Maximum number of items to return.")] = 100
    cursor: Annotated[str | None, Field(pattern=CURSOR, description="`next_cursor` of the page before.")] = None
    every: Annotated[
        int | None,
        Field(ge=1, le=86_400, description="Only the newest of each so many seconds of the clock: a curve of a month."),
    ] = None


class HourRecord(Outbound):
    """What the heartbeats of one hour were thinned to, besides the values of the last of them."""

    heartbeats: int = Field(description="How many there were.")
    first_received_at: str = Field(description="When the first of them was received; RFC 3339 in UTC.")
    battery_percent_first: int | float | None = Field(description="In percent; null where the first did not say it.")
    battery_percent_min: int | float | None = Field(description="In percent.")
    battery_percent_max: int | float | None = Field(description="In percent.")
    storage_used_mb_first: int | float | None = Field(description="In megabytes; null where the first did not say it.")
    storage_used_mb_min: int | float | None = Field(description="In megabytes.")
    storage_used_mb_max: int | float | None = Field(description="In megabytes.")
    signal_strength_dbm_min: int | float | None = Field(description="In dBm.")
    signal_strength_dbm_max: int | float | None = Field(description="In dBm.")
    pending_recordings_max: int | None = Field(description="Recordings that waited to be uploaded.")


class HeartbeatRecord(Outbound):
    """A heartbeat as it was stored, or the last of an hour. Times are RFC 3339 in UTC; what it did not say is null."""

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
    hour: HourRecord | None = Field(
        description="Set where the heartbeats of an hour were thinned to this one (setting `heartbeat_raw_days`); "
        "`received_at` and the values are then those of the last of them."
    )


class HeartbeatList(Outbound):
    """A page of heartbeats, newest first."""

    data: list[HeartbeatRecord] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor
