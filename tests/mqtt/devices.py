"""A bound device of the MQTT tests, and its heartbeats."""

import json
from dataclasses import dataclass
from typing import Any

from gateway.core.clock import to_rfc3339
from tests.support.mqtt_password import mqtt_password_of


@dataclass(frozen=True)
class Device:
    """A bound device as its firmware knows it."""

    id: str
    pk: int
    token: str
    generation: int
    prefix: str = ""

    @property
    def mqtt_password(self) -> str:
        """What it tells the broker."""
        return mqtt_password_of(self.token)

    def topic(self, leaf: str) -> str:
        """One of its topics: `heartbeat`, `commands/reboot/ack`."""
        return f"{self.prefix}devices/{self.id}/{leaf}"


def heartbeat_payload(battery: int, **fields: Any) -> bytes:
    """A heartbeat; each battery level has its own `sent_at`, so a repeated one is known as such."""
    return json.dumps({"battery_percent": battery, "sent_at": to_rfc3339(battery * 1000), **fields}).encode()
