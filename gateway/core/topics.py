"""Topic names (contract, section 3). Only this module builds and parses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.core import ids
from gateway.core.command_types import CommandType

REMEMBERED: Final = 32_768
"""Number of parsed topics that are cached: at most about 12 MB."""
_DEVICE: Final = re.compile(
    rf"devices/(?P<device>dev_{ids.BODY})/"
    r"(?:(?P<leaf>heartbeat|status)|commands/(?P<type>[a-z_]{1,64})(?P<ack>/ack)?)"
)
_STATE: Final = re.compile(rf"devices/(?P<device>dev_{ids.BODY})/state")
_PROJECT_STATE: Final = re.compile(rf"projects/{ids.PROJECT}{ids.BODY}/devices/(?P<device>dev_{ids.BODY})/state")
_MARKS: Final = "gateways/marks"
_GATEWAY: Final = re.compile(r"gateways/(?P<gateway>[A-Za-z0-9_-]{1,64})/status")


@dataclass(frozen=True)
class HeartbeatTopic:
    """``devices/{id}/heartbeat``."""

    device_id: str


@dataclass(frozen=True)
class StatusTopic:
    """``devices/{id}/status``."""

    device_id: str


@dataclass(frozen=True)
class AckTopic:
    """``devices/{id}/commands/{type}/ack``."""

    device_id: str
    type: str


@dataclass(frozen=True)
class CommandTopic:
    """``devices/{id}/commands/{type}``. The gateway reads it only when it compares retained messages."""

    device_id: str
    type: str


@dataclass(frozen=True)
class GatewayStatusTopic:
    """``gateways/{id}/status``."""

    gateway_id: str


@dataclass(frozen=True)
class MarksTopic:
    """``gateways/marks``: messages that the gateway sends to itself through the broker."""


Topic = HeartbeatTopic | StatusTopic | AckTopic | CommandTopic | GatewayStatusTopic | MarksTopic


class Topics:
    """Every topic of the contract, under one prefix that is empty or ends with a slash."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.parse: Callable[[str], Topic | None] = lru_cache(REMEMBERED)(self._parse)
        """Parse a topic. Return None for a topic that is not of the contract."""

    def under(self, rest: str) -> str:
        """Return a topic or filter under the prefix."""
        return f"{self.prefix}{rest}"

    def heartbeat(self, device_id: str) -> str:
        """Return the topic of a device's heartbeats."""
        return f"{self.prefix}devices/{device_id}/heartbeat"

    def status(self, device_id: str) -> str:
        """Return the topic of a device's online message and last will."""
        return f"{self.prefix}devices/{device_id}/status"

    def command(self, device_id: str, command_type: str) -> str:
        """Return the retained topic of the open command of that type."""
        return f"{self.prefix}devices/{device_id}/commands/{command_type}"

    def ack(self, device_id: str, command_type: str) -> str:
        """Return the topic where a device acknowledges commands of that type."""
        return f"{self.prefix}devices/{device_id}/commands/{command_type}/ack"

    def news(self, device_id: str) -> tuple[str, ...]:
        """Return the device's topics on which nothing may be retained: all but its status."""
        return (self.heartbeat(device_id), *(self.ack(device_id, each) for each in CommandType))

    def errors(self, device_id: str) -> str:
        """Return the topic where the gateway says why it refused a message."""
        return f"{self.prefix}devices/{device_id}/errors"

    def state(self, device_id: str) -> str:
        """Return the topic of the retained device object, for integrators of all projects."""
        return f"{self.prefix}devices/{device_id}/state"

    def event(self, device_id: str, event_type: str) -> str:
        """Return the topic of a device's events, for integrators of all projects."""
        return f"{self.prefix}devices/{device_id}/events/{event_type}"

    def project_state(self, project_id: str, device_id: str) -> str:
        """Return the topic of the retained device object, for integrators of this project."""
        return f"{self.prefix}projects/{project_id}/devices/{device_id}/state"

    def project_event(self, project_id: str, device_id: str, event_type: str) -> str:
        """Return the topic of a device's events, for integrators of this project."""
        return f"{self.prefix}projects/{project_id}/devices/{device_id}/events/{event_type}"

    def gateway_status(self, gateway_id: str) -> str:
        """Return the topic of the gateway's own online message and last will."""
        return f"{self.prefix}gateways/{gateway_id}/status"

    def is_gateway_status(self, topic: str) -> bool:
        """Return whether this is the status topic of a gateway, of this or another registry."""
        return topic.startswith(f"{self.prefix}gateways/") and topic.endswith("/status")

    @property
    def marks(self) -> str:
        """Return the topic of the marks that the gateway sends to itself."""
        return f"{self.prefix}{_MARKS}"

    @property
    def inbound(self) -> tuple[str, ...]:
        """Return the filters that the gateway subscribes to while it runs."""
        from_devices = (f"{self.prefix}devices/+/{leaf}" for leaf in ("heartbeat", "status", "commands/+/ack"))
        return (*from_devices, self.marks)

    def device_of_state(self, topic: str) -> str | None:
        """Return the device whose state this topic holds, or None for any other topic."""
        found = _STATE.fullmatch(topic.removeprefix(self.prefix)) if topic.startswith(self.prefix) else None
        return None if found is None else found["device"]

    def device_of_project_state(self, topic: str) -> str | None:
        """Return the device whose state this topic holds for a project's integrators, or None for any other topic."""
        found = _PROJECT_STATE.fullmatch(topic.removeprefix(self.prefix)) if topic.startswith(self.prefix) else None
        return None if found is None else found["device"]

    def _parse(self, topic: str) -> Topic | None:
        if not topic.startswith(self.prefix):
            return None
        rest = topic.removeprefix(self.prefix)
        if found := _DEVICE.fullmatch(rest):
            return _device_topic(found)
        if found := _GATEWAY.fullmatch(rest):
            return GatewayStatusTopic(found["gateway"])
        if rest == _MARKS:
            return MarksTopic()
        return None


def _device_topic(found: re.Match[str]) -> Topic:
    device_id, leaf, command_type = found["device"], found["leaf"], found["type"]
    if leaf == "heartbeat":
        return HeartbeatTopic(device_id)
    if leaf == "status":
        return StatusTopic(device_id)
    return AckTopic(device_id, command_type) if found["ack"] else CommandTopic(device_id, command_type)
