"""Inputs and actions of the firmware: the only values that `device.Device` and its runtime exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from device_sim.binding import Binding, Endpoint

Connection: TypeAlias = Literal["wifi", "4g", "ble"]
Transport: TypeAlias = Literal["mqtt", "http", "ble"]
AckStatus: TypeAlias = Literal["delivered", "executed", "failed"]

SERIAL, FIRMWARE, APN = "serial_number", "firmware_version", "cellular_apn"
"""Names of the factory's values, in the area of the flash that a reset keeps."""


class Area(StrEnum):
    """The two areas of the flash: a factory reset wipes one and keeps the other."""

    WIPED = "wiped"
    KEPT = "kept"


# --- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PowerOn:
    """The firmware starts and knows only the content of the flash."""

    wiped: Mapping[str, Any] = field(repr=False)
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class Provisioned:
    """The companion app wrote a binding over BLE, and for a WiFi device also its network."""

    binding: Binding
    wifi_networks: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class WifiGiven:
    """The companion app added a WiFi network over BLE."""

    ssid: str
    psk: str = field(repr=False)


@dataclass(frozen=True)
class LinkUp:
    """A connection is up, and all its subscriptions are granted."""

    connection: Connection
    transport: Transport


@dataclass(frozen=True)
class LinkDown:
    """The connection ended or could not be made."""

    reason: str


@dataclass(frozen=True)
class LinkRefused:
    """The server refused the token `refusals` times in a row."""

    refusals: int
    reason: str
    transport: Transport = "mqtt"


@dataclass(frozen=True)
class HeartbeatDue:
    """An interval has passed."""


@dataclass(frozen=True)
class CommandReceived:
    """A command arrived: retained or live over MQTT, or with the answer to a heartbeat over HTTP."""

    type: str
    payload: bytes


@dataclass(frozen=True)
class RefusalReceived:
    """The gateway refused a message of this device and published why on `errors`."""

    payload: bytes


@dataclass(frozen=True)
class TokenRefreshed:
    """The gateway answered `RefreshToken` with another token of the same binding, and the broker that admits it."""

    device_token: str = field(repr=False)
    mqtt: Endpoint


@dataclass(frozen=True)
class RefreshFailed:
    """`RefreshToken` failed. With `revoked` the token is no longer valid, so another request would fail too.

    `retry_after` is the number of seconds that the gateway asked to wait.
    """

    reason: str
    revoked: bool
    retry_after: float = 0.0


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordFact:
    """Record a fact for observers. It has no other effect."""

    name: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Publish:
    """Send this message, and report `Published` or `PublishFailed`.

    `command_id` names the command that an acknowledgement is about, or whose outcome a heartbeat carries.
    """

    kind: Literal["heartbeat", "status", "ack"]
    payload: bytes
    command_id: str | None = None
    command_type: str | None = None
    status: AckStatus | None = None


@dataclass(frozen=True)
class WriteFlash:
    """Replace one value. After a power cut the flash holds the new value or the old one."""

    area: Area
    name: str
    value: Any = field(repr=False)


@dataclass(frozen=True)
class EraseFlash:
    """Remove one value; no error when it does not exist."""

    area: Area
    name: str


@dataclass(frozen=True)
class OpenLink:
    """Close the present link, if there is one, and keep one of this kind up."""

    connection: Connection
    binding: Binding = field(repr=False)


@dataclass(frozen=True)
class RefreshToken:
    """Request another token of this binding over HTTP, and report `TokenRefreshed` or `RefreshFailed`."""

    binding: Binding = field(repr=False)


@dataclass(frozen=True)
class Upload:
    """Upload one recording with the token of this binding; its label says in which generation it was made."""

    recording_id: str
    made_in: int
    binding: Binding = field(repr=False)


@dataclass(frozen=True)
class Reboot:
    """Close the link, discard everything but the flash, and start with `PowerOn`."""


Action: TypeAlias = RecordFact | Publish | WriteFlash | EraseFlash | OpenLink | RefreshToken | Upload | Reboot


@dataclass(frozen=True)
class Published:
    """The message was confirmed: by a PUBACK or a 2xx status."""

    message: Publish


@dataclass(frozen=True)
class PublishFailed:
    """The message was not confirmed; it may have arrived all the same. An MQTT link is closed after that."""

    message: Publish
    reason: str


Input: TypeAlias = (
    PowerOn
    | Provisioned
    | WifiGiven
    | LinkUp
    | LinkDown
    | LinkRefused
    | HeartbeatDue
    | CommandReceived
    | RefusalReceived
    | TokenRefreshed
    | RefreshFailed
    | Published
    | PublishFailed
)
