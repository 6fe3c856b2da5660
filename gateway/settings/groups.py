"""Groups of settings, and the declaration of one setting: its group, default, bounds and help text."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

PLACE: Final = "Where things are"
BROKER: Final = "The broker"
PRESENCE: Final = "Devices and presence"
INTEGRATORS: Final = "What integrators receive over MQTT"
KEPT: Final = "What is kept"
LIMITS: Final = "Limits and pace"
TLS: Final = "TLS"
MOSQUITTO: Final = "Mosquitto beside the gateway"
ASKING: Final = "A broker that asks the gateway"
RUNNING: Final = "Running"
SIGN_IN: Final = "People who sign in"


def setting(group: str, default: object, description: str, *, ge: float | None = None, le: float | None = None) -> Any:
    """Return the declaration of a setting with this default, between these bounds."""
    return Field(default, description=description, json_schema_extra={"group": group}, ge=ge, le=le)


def on(group: str, description: str) -> Any:
    """Return the declaration of a switch that is on by default."""
    return Field(default=True, description=description, json_schema_extra={"group": group})


def off(group: str, description: str) -> Any:
    """Return the declaration of a switch that is off by default."""
    return Field(default=False, description=description, json_schema_extra={"group": group})
