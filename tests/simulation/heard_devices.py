"""Which broker received each device last, and when: its last will and its silence are judged by that."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.broker import Broker


class HeardDevices:
    """The last heartbeat of each device that a broker queued for its gateway; without devices that left since."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, Broker]] = {}

    def last(self, device_id: str) -> tuple[float, Broker] | None:
        """Return when the device was received last, in virtual seconds, and by which broker."""
        return self._heard.get(device_id)

    def heartbeat(self, device_id: str, broker: Broker) -> None:
        """Note a heartbeat."""
        self._heard[device_id] = asyncio.get_running_loop().time(), broker

    def status(self, device_id: str, broker: Broker, payload: bytes) -> None:
        """Note a status. A last will of another broker is late, and ends nothing."""
        at = self._heard.get(device_id)
        if at is not None and (at[1] is broker or json.loads(payload)["status"] == "online"):
            del self._heard[device_id]

    def forget(self, broker: Broker) -> None:
        """Note that this broker has lost what it kept."""
        self._heard = {device_id: at for device_id, at in self._heard.items() if at[1] is not broker}
