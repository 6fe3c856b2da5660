"""A client of the broker: by which name it is known there, and whose it is."""

from __future__ import annotations

from typing import NamedTuple, Self


class Client(NamedTuple):
    """A device's client id is its user name; an integrator may have several clients."""

    client_id: str
    username: str

    @classmethod
    def of_device(cls, device_id: str) -> Self:
        """The one client of a device."""
        return cls(device_id, device_id)
