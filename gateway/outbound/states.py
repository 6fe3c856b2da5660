"""``devices/{id}/state``: the device object, retained, for integrators (contract, section 3)."""

from __future__ import annotations

import re
from typing import Final

from gateway.store import Row, devices, outbox
from gateway.topics import Topics

_HEARD: Final = re.compile(rb'"last_heartbeat_at":("[^"]*"|null),')


class StateLeaf:
    """The device as the API shows it."""

    detail = outbox.STATE

    def __init__(self, names: Topics) -> None:
        self._names = names
        self.topic = names.state

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Whose state this is: all on these topics is ours, one gateway per broker and prefix."""
        del payload
        return self._names.device_of_state(topic)

    def payload(self, device: Row) -> bytes:
        """The device object as JSON."""
        return devices.to_model(device).model_dump_json().encode()

    def compared(self, payload: bytes) -> bytes:
        """All but when it was last heard, which alone is no reason to tell it again."""
        return _HEARD.sub(b"", payload, count=1)
