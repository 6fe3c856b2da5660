"""Home Assistant discovery: ``homeassistant/device/{id}/config`` (MQTT discovery).

One retained message a device ("device-based discovery", Home Assistant 2024.12 or newer) names its entities, which all
read the device's retained state. Other programs publish under the same prefix; only what points to our states is ours.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from gateway import __version__
from gateway.core import ids
from gateway.core.received_json import parse_json
from gateway.core.topics import Topics
from gateway.store import View, outbox_sql
from gateway.store.device_sql import DeviceRecord

Json = dict[str, Any]
_DEVICE: Final = "(value_json | default({}))"  # a state that is cleared is an empty message


def _field(name: str) -> str:
    return "{{ " + f"{_DEVICE}.get('{name}')" + " }}"


_STORAGE: Final = (
    "{% set device = " + _DEVICE + " %}"
    "{% if device.get('storage_total_mb') and device.get('storage_used_mb') is not none %}"
    "{{ (100 * device.storage_used_mb / device.storage_total_mb) | round(1) }}"
    "{% else %}{{ none }}{% endif %}"
)
_ENTITIES: Final[dict[str, Json]] = {
    "battery": {
        "platform": "sensor",
        "device_class": "battery",
        "unit_of_measurement": "%",
        "state_class": "measurement",
        "value_template": _field("battery_percent"),
    },
    "storage": {
        "platform": "sensor",
        "name": "Storage used",
        "icon": "mdi:harddisk",
        "unit_of_measurement": "%",
        "state_class": "measurement",
        "value_template": _STORAGE,
    },
    "signal": {
        "platform": "sensor",
        "device_class": "signal_strength",
        "unit_of_measurement": "dBm",
        "state_class": "measurement",
        "entity_category": "diagnostic",
        "value_template": _field("signal_strength_dbm"),
    },
    "connectivity": {
        "platform": "binary_sensor",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "payload_on": "online",
        "payload_off": "offline",
        "value_template": _field("connection"),
    },
    "last_heartbeat": {
        "platform": "sensor",
        "name": "Last heartbeat",
        "device_class": "timestamp",
        "entity_category": "diagnostic",
        "value_template": _field("last_heartbeat_at"),
    },
}


class DiscoveryTopic:
    """The discovery message of a device. ``prefix`` is Home Assistant's, without a trailing slash."""

    detail = outbox_sql.DISCOVERY
    fact = f"mirror_{outbox_sql.DISCOVERY}"
    """The registry's key for the fact that devices were ever announced."""

    def __init__(self, names: Topics, prefix: str, gateway_id: str) -> None:
        self._names = names
        self._prefix = prefix
        self._status = names.gateway_status(gateway_id)
        self._topic = re.compile(rf"{re.escape(prefix)}/device/({ids.DEVICE}{ids.BODY})/config")

    @property
    def status_topics(self) -> tuple[str, ...]:
        """Return the topics of Home Assistant's status: by default ``homeassistant/status``, whatever its prefix."""
        return tuple({f"{self._prefix}/status", self._names.under("homeassistant/status")})

    def projects(self, view: View) -> None:
        """Return None: devices of all projects are announced."""

    def topic(self, device_id: str, project_id: str = "") -> str:
        """Return the topic of a device's discovery message."""
        del project_id
        return f"{self._prefix}/device/{device_id}/config"

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Return the device of a discovery message of ours, or None: another gateway may share the prefix."""
        found = self._topic.fullmatch(topic)
        try:
            told = parse_json(payload)
        except ValueError:
            return None
        ours = found is not None and isinstance(told, dict) and told.get("state_topic") == self._names.state(found[1])
        return found[1] if found is not None and ours else None

    def compared(self, payload: bytes) -> bytes:
        """Return all of it."""
        return payload

    def payload(self, device: DeviceRecord) -> bytes:
        """Return the discovery message."""
        told = {
            "device": _about(device),
            "origin": {"name": "device-gateway", "sw_version": __version__},
            "state_topic": self._names.state(device.id),
            "availability": [{"topic": self._status, "value_template": "{{ value_json.status }}"}],
            "qos": 1,
            "components": {name: {**entity, "unique_id": f"{device.id}_{name}"} for name, entity in _ENTITIES.items()},
        }
        return json.dumps(told, ensure_ascii=False).encode()


def _about(device: DeviceRecord) -> Json:
    about = {
        "identifiers": [device.id],
        "name": device.name or device.serial_number,
        "serial_number": device.serial_number,
        "model": device.model,
    }
    version = device.firmware_version
    return about if version is None else {**about, "sw_version": version}
