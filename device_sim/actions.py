"""What goes into the firmware and what comes out: the only words that `device.Device` and its surroundings exchange."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from device_sim.binding import Binding

Connection: TypeAlias = Literal["wifi", "4g", "ble"]
Transport: TypeAlias = Literal["mqtt", "http", "ble"]
AckStatus: TypeAlias = Literal["delivered", "executed", "failed"]


class Area(StrEnum):
    """The two areas of the flash: what a factory reset wipes, and what outlives it."""

    WIPED = "wiped"
    KEPT = "kept"


# --- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PowerOn:
    """The firmware starts, knowing nothing but what lies in the flash."""

    wiped: Mapping[str, Any] = field(repr=False)
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class Provisioned:
    """The companion app wrote a binding over BLE, and for a WiFi device its network."""

    binding: Binding
    wifi_networks: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class WifiGiven:
    """The companion app added a WiFi network over BLE."""

    ssid: str
    psk: str = field(repr=False)


@dataclass(frozen=True)
class LinkUp:
    """A connection is up, and every subscription of it is granted."""

    connection: Connection
    transport: Transport


@dataclass(frozen=True)
class LinkDown:
    """The connection is gone, or could not be made."""

    reason: str


@dataclass(frozen=True)
class LinkRefused:
    """The far end refused the token `refusals` times in a row."""

    refusals: int
    reason: str
    transport: Transport = "mqtt"


@dataclass(frozen=True)
class HeartbeatDue:
    """An interval has passed."""


@dataclass(frozen=True)
class CommandReceived:
    """A command topic (or the answer to a heartbeat over HTTP) brought this; whether it was retained nobody asks."""

    type: str
    payload: bytes


@dataclass(frozen=True)
class RefusalReceived:
    """The gateway answered on `errors` that it refused a message of this device."""

    payload: bytes


@dataclass(frozen=True)
class TokenRefreshed:
    """The gateway answered `RefreshToken` with another token of the same binding."""

    device_token: str = field(repr=False)


@dataclass(frozen=True)
class RefreshFailed:
    """It did not; with `revoked` the token opens nothing any more, and asking again is of no use."""

    reason: str
    revoked: bool


# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tell:
    """A fact for whoever watches; the world does not change by it."""

    name: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Publish:
    """Send this, and answer with `Published` or `PublishFailed`.

    `command_id` says what an acknowledgement acknowledges, or whose outcome a heartbeat carries.
    """

    kind: Literal["heartbeat", "status", "ack"]
    payload: bytes
    command_id: str | None = None
    command_type: str | None = None
    status: AckStatus | None = None


@dataclass(frozen=True)
class WriteFlash:
    """Replace one value; it is on the disk, or the old one is, whenever the power goes."""

    area: Area
    name: str
    value: Any = field(repr=False)


@dataclass(frozen=True)
class EraseFlash:
    """Remove one value; no error when it is gone already."""

    area: Area
    name: str


@dataclass(frozen=True)
class OpenLink:
    """Close whatever link there is and keep one of this kind up."""

    connection: Connection
    binding: Binding = field(repr=False)


@dataclass(frozen=True)
class RefreshToken:
    """Ask over HTTP for another token of this binding, and answer with `TokenRefreshed` or `RefreshFailed`."""

    binding: Binding = field(repr=False)


@dataclass(frozen=True)
class Reboot:
    """Close the link, forget everything but the flash, and start with `PowerOn`."""


Action: TypeAlias = Tell | Publish | WriteFlash | EraseFlash | OpenLink | RefreshToken | Reboot


@dataclass(frozen=True)
class Published:
    """The far end took it: PUBACK, or a 2xx."""

    what: Publish


@dataclass(frozen=True)
class PublishFailed:
    """Nobody confirmed it; it may have arrived all the same. An MQTT link on which that happens is given up."""

    what: Publish
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
