"""Acknowledgements of the device, over MQTT or HTTP."""

import json
from dataclasses import dataclass
from typing import Any

from device_sim.conformance.http_side import ACK_END, ACK_START
from device_sim.conformance.log import Event


@dataclass(frozen=True)
class Ack:
    """An acknowledgement as it arrived. `topic_type` is empty over HTTP."""

    event: Event
    topic_type: str
    body: dict[str, Any]

    @property
    def status(self) -> Any:
        """Return `delivered`, `executed` or `failed`, if it is right."""
        return self.body.get("status")

    @property
    def code(self) -> Any:
        """Return the code of its error, or None."""
        error = self.body.get("error")
        return error.get("code") if isinstance(error, dict) else None

    def __str__(self) -> str:
        """Return it as the report shows it."""
        return f"{self.status} {self.code}" if self.code else str(self.status)


def ack_of(event: Event) -> Ack | None:
    """Return the acknowledgement that an event is, or None."""
    if event.kind == "publish" and event.data.topic.endswith(ACK_END):
        return _made(event, event.data.topic.split("/")[-2], _json(event.data.payload))
    if event.kind == "http" and event.data.path.startswith(ACK_START):
        return _made(event, "", event.data.body)
    return None


def _made(event: Event, topic_type: str, body: Any) -> Ack | None:
    return Ack(event, topic_type, body) if isinstance(body, dict) else None


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None
