"""Presence as far as it is known: without its broker the gateway cannot learn that a device comes or goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.cli import output
from gateway.models.states import Radio

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient, Json

UNKNOWN: Final = "unknown"
BLUETOOTH_ONLY: Final = (
    "It was last seen over Bluetooth, by a relay, which brings no reset to it: the reset waits for WiFi or cellular, "
    "and never expires."
)


async def doubt(api: ApiClient) -> str | None:
    """Return why presence is not known now; None when it is."""
    facts = await api.readiness()
    if facts is None:
        return None if api.remote else "no gateway runs on this data directory"
    lease = next((each for each in facts.get("leases", ()) if each["name"].startswith("broker:")), None)
    if facts["broker"]["connected"] or (lease is not None and not lease["held"] and lease["owner"] is not None):
        return None  # a gateway that stands by has no session; the owner stores who is there
    if lease is not None and lease["error"]:
        return "no gateway serves the broker"
    error = facts["broker"].get("error")
    return "the gateway is not connected to its broker" + (f" ({output.cell(error)})" if error else "")


def as_known(device: Json, why: str | None) -> Json:
    """Return the device as it is printed: with its connection only if that is known."""
    return device if why is None else {**device, "connection": UNKNOWN}


def warn(why: str | None) -> None:
    """Warn that presence is unknown, and why."""
    if why is not None:
        output.note(f"warning: {why}, so which devices are online is not known.")


def is_behind_bluetooth(state: Json) -> bool:
    """Return whether a device was seen over Bluetooth last; ``state`` is its health."""
    return bool(state["last_seen_by"] == Radio.BLE)
