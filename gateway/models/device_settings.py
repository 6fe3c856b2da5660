"""What can be set on a device, with the defaults of the contract (section 2).

Stored is what differs from the defaults, answered is everything.
"""

from __future__ import annotations

import json
import zoneinfo
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema

from gateway.models.validation import invalid


def _idle_timeout(seconds: int) -> int:
    if seconds not in (0, -1) and not 10 <= seconds <= 2540:  # noqa: PLR2004 - the contract's bounds, said in the message
        raise ValueError("should be 0 or -1 (never) or 10 to 2540 seconds")
    return seconds


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        raise ValueError("should be a name of the IANA time zone database, such as Europe/Berlin or UTC")
    return name


def _distinct(networks: list[str]) -> list[str]:
    if len(set(networks)) != len(networks):
        raise ValueError("should name each network once")
    return networks


IdleTimeout = Annotated[
    int,
    AfterValidator(_idle_timeout),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "enum": [0, -1]}, {"type": "integer", "minimum": 10, "maximum": 2540}]}
    ),
]
Network = Literal["wifi", "ble", "cellular"]
ClockTime = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


TimeZone = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_time_zone),
]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class EnabledConnections(_Group):
    """Which radios the device may use."""

    wifi: bool = Field(default=True, description="Whether the device may use WiFi.")
    cellular: bool = Field(default=True, description="Whether the device may use its cellular modem.")


class PowerManagement(_Group):
    """When idle radios are switched off; seconds, 0 or -1 = never."""

    wifi_idle_timeout_seconds: IdleTimeout = Field(default=180, description="Seconds of idle WiFi; 0 or -1 = never.")
    cellular_idle_timeout_seconds: IdleTimeout = Field(
        default=180, description="Seconds of idle modem; 0 or -1 = never."
    )


class Connection(_Group):
    """Radios."""

    enabled_connections: EnabledConnections = Field(
        default=EnabledConnections(), description="Which radios are allowed."
    )
    upload_network_preference: Annotated[
        list[Network], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})
    ] = Field(
        default=["wifi", "ble", "cellular"], description="Over which link recordings are uploaded, the best first."
    )
    power_management: PowerManagement = Field(
        default=PowerManagement(), description="When idle radios are switched off."
    )


class OffPeakHours(_Group):
    """When uploads may run, ``HH:MM``; by the device's local time where no time zone is given."""

    enabled: bool = Field(default=True, description="Whether the hours count; false lets uploads run at any time.")
    start: ClockTime = Field(description="Beginning, `HH:MM`.")
    end: ClockTime = Field(description="End, `HH:MM`; before `start` it is that of the next day.")
    timezone: TimeZone | None = Field(
        default=None,
        description="A name of the IANA time zone database, such as `Europe/Berlin`; null: the device's local time.",
    )


class Upload(_Group):
    """How recordings leave the device."""

    streaming_enabled: bool = Field(default=False, description="Whether a recording is uploaded while it is made.")
    streaming_chunk_kb: int = Field(
        default=256, ge=64, le=1024, description="Kilobytes of one piece of such an upload."
    )
    daily_data_limit_mb: int = Field(default=0, ge=0, le=1_000_000, description="Megabytes; 0 = no limit.")
    allow_roaming: bool = Field(default=False, description="Whether uploads run while the modem roams.")
    pause_on_low_battery: bool = Field(default=True, description="Whether uploads wait while the battery is low.")
    off_peak_hours: OffPeakHours | None = Field(default=None, description="When uploads may run; null: at any time.")


class Audio(_Group):
    """How the device records."""

    codec: Literal["opus", "aac", "wav"] = Field(default="opus", description="Format of a recording.")
    sample_rate_khz: Literal[16, 24, 48] = Field(default=16, description="Samples in a millisecond.")
    bitrate_kbps: int = Field(default=32, ge=8, le=320, description="Kilobits in a second.")


class Power(_Group):
    """How the device saves its battery."""

    auto_sleep_minutes: int = Field(default=30, ge=0, le=1440, description="Minutes; 0 = never.")
    low_battery_threshold_percent: int = Field(
        default=20, ge=0, le=100, description="A charge at or below it counts as low battery."
    )


class DeviceSettings(_Group):
    """Everything that can be set on a device."""

    connection: Connection = Field(default=Connection(), description="Which radios the device uses, and for how long.")
    upload: Upload = Field(default=Upload(), description="When and how recordings are uploaded.")
    audio: Audio = Field(default=Audio(), description="Format and quality of recordings.")
    power: Power = Field(default=Power(), description="Sleep and low battery.")


_HOURS: Final[dict[str, Any]] = {"enabled": True, "start": None, "end": None, "timezone": None}
"""Off-peak hours in the order of their fields. Those stored by older versions lack ``enabled`` and ``timezone``."""
_DEFAULTS: Final[dict[str, Any]] = DeviceSettings().model_dump(mode="json")


def with_defaults(stored: dict[str, Any]) -> dict[str, Any]:
    """The settings in force: what is stored over the defaults."""
    merged = merge(_DEFAULTS, stored)
    if merged["upload"]["off_peak_hours"] is not None:
        merged["upload"]["off_peak_hours"] = _HOURS | merged["upload"]["off_peak_hours"]
    return merged


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A deep merge: objects are merged key by key, anything else replaces what was there."""
    merged = dict(base)
    for key, value in change.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def difference(base: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What of ``other`` is not as in ``base``; merged over ``base`` it gives ``other`` again."""
    found = {}
    for key, value in other.items():
        known = base.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            if inner := difference(known, value):
                found[key] = inner
        elif key not in base or value != known:
            found[key] = value
    return found


def changed(stored: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """What is to be stored after this change.

    Raises:
        InvalidRequestError: ``details`` name the dotted fields, such as ``settings.audio.bitrate_kbps``.
    """
    wanted = json.dumps(merge(with_defaults(stored), change))
    try:
        settings = DeviceSettings.model_validate_json(wanted)
    except ValidationError as error:
        raise invalid(error, whole="settings", within="settings") from error
    return difference(_DEFAULTS, settings.model_dump(mode="json"))


SHOWN_AS: Final = "x-shown-as"
ShownSettings = Annotated[dict[str, Any], WithJsonSchema({"type": "object", SHOWN_AS: "DeviceSettings"})]
"""Settings as an answer has them: a plain dictionary; the documents refer to the schema of :class:`DeviceSettings`."""


def _change_schema() -> dict[str, Any]:
    schema = DeviceSettings.model_json_schema()
    inlined: dict[str, Any] = _inlined(schema, schema["$defs"])
    return inlined


def _inlined(node: Any, groups: dict[str, Any]) -> Any:
    """Without references, and without defaults: in a change a field that is left out stays as it is."""
    if isinstance(node, list):
        return [_inlined(each, groups) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(groups[node["$ref"].rpartition("/")[2]], groups)
    return {key: _inlined(value, groups) for key, value in node.items() if key not in ("$defs", "default", "title")}


CHANGE_SCHEMA: Final = _change_schema()
"""JSON Schema of a change: any part of the settings."""
