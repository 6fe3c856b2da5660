"""Options of a simulated device; each default suits a trial."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from device_sim.faults import Faults, NoFaults

RadioKind = Literal["wifi", "cellular", "ble"]
MqttVersion = Literal["3.1.1", "5"]
Transport = Literal["mqtt", "http"]
CELLULAR_APN = "iot.example"


def wall_clock() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Options:
    """Options of a device.

    `transport` is the protocol over WiFi and the modem. `wifi_network` is given to a WiFi device by the companion app.
    `ca_file` (PEM) replaces the system's authorities for MQTT over TLS. `cert_file` with `key_file` (PEM) is the
    device's certificate, for a broker that requires one. `backoff_first` and `backoff_longest` limit the pauses between
    connections, in seconds, and `backoff_refused` those after a refused password. A connection of `backoff_stable`
    seconds begins with the first pause again. `recordings` wait for their upload under each binding.
    """

    faults: Faults = field(default_factory=NoFaults)
    transport: Transport = "mqtt"
    mqtt_version: MqttVersion = "3.1.1"
    keepalive_seconds: int = 30
    backoff_first: float = 0.5
    backoff_longest: float = 60.0
    backoff_refused: float = 300.0
    backoff_stable: float = 10.0
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    recordings: int = 0
    model: str = "bota_pin"
    name: str | None = None
    firmware_version: str = "1.4.2"
    wifi_network: Mapping[str, str] = field(default_factory=lambda: {"ssid": "home", "psk": "correct horse"})
    clock: Callable[[], int] = wall_clock
