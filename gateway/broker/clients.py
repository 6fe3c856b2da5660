"""A client of the broker: its client id and its account."""

from __future__ import annotations

from typing import NamedTuple, Self


class BrokerClient(NamedTuple):
    """A device's client id is its user name. An integrator may have several clients."""

    client_id: str
    username: str

    @classmethod
    def of_device(cls, device_id: str) -> Self:
        """Return the one client of a device."""
        return cls(device_id, device_id)
