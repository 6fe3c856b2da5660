"""Overview of the fleet for the terminal: its queries and its words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import output, presence
from gateway.cli.api import ApiClient, Json, at
from gateway.core.text import relative_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIGURES: Final[Mapping[str, str]] = {
    "total_count": "devices",
    "online_count": "online",
    "offline_count": "offline",
    "never_seen_count": "never seen",
    "low_battery_count": "low battery",
    "storage_full_count": "storage full",
    "pending_reset_count": "pending resets",
}
"""The counters, and their names for people."""
ONLY: Final[Mapping[str, Mapping[str, str]]] = {
    "all": {},
    "online": {"connection": "online"},
    "offline": {"connection": "offline", "seen": "true"},
    "never-seen": {"seen": "false"},
    "low-battery": {"condition": "low_battery"},
    "storage-full": {"condition": "storage_full"},
    "resets": {"condition": "reset_pending"},
}
"""Filters of the list, as the API takes them; in the order of the counters."""
COLUMNS: Final = ("SERIAL", "NAME", "CONNECTION", "BATTERY", "STORAGE", "SIGNAL", "DOING", "HEARD", "BOUND TO", "ID")
EVENTS: Final = 10
_APART: Final = ("device_id", "actor", "actor_name")
_PRESENCE: Final = ("online_count", "offline_count")


@dataclass(frozen=True)
class Glance:
    """The fleet as it is now, with some of its devices."""

    stats: Json
    devices: list[Json]
    more: bool
    """Whether there are devices after these."""
    doubt: str | None = None
    """Why presence is unknown, or None."""


async def look(api: ApiClient, only: str, *, tags: Sequence[str], offset: int, limit: int) -> Glance:
    """Return the devices with these tags as they are now, ``limit`` of those that pass ``only``, newest first."""
    tagged = {"tag": list(tags)} if tags else {}
    stats = await api.get(at("devices", "stats"), **tagged)
    page = await api.get(at("devices"), **ONLY[only], **tagged, limit=limit, offset=offset)
    return Glance(stats, page["data"], page["has_more"], await presence.doubt(api))


def counted(stats: Json, name: str, why: str | None) -> str:
    """Return a counter for people; one of presence only if presence is known (``why``: why it is not)."""
    return "?" if why is not None and name in _PRESENCE else f"{stats[name]:,}"


async def project_name(api: ApiClient) -> str:
    """Return the name of the project."""
    return str((await api.get(at("key")))["project_name"])


def cells(device: Json, now: datetime | None = None) -> list[Any]:
    """Return a device as a row of ``COLUMNS``."""
    return [
        device["serial_number"],
        device["name"],
        device["connection"],
        percent(device["battery_percent"]),
        percent(used_percent(device)),
        None if device["signal_strength_dbm"] is None else f"{round(device['signal_strength_dbm'])} dBm",
        (device["recording_state"] or {}).get("device_state"),
        ago(device["last_heartbeat_at"], now),
        device["end_user_id"],
        device["id"],
    ]


def used_percent(device: Json) -> float | None:
    """Return how much of its storage is used, or None when it did not report that."""
    part, whole = device["storage_used_mb"], device["storage_total_mb"]
    return 100 * part / whole if part is not None and whole else None


def percent(value: float | None) -> str | None:
    """Return a percentage for people."""
    return None if value is None else f"{round(value)} %"


def ago(moment: str | None, now: datetime | None = None) -> str:
    """Return the time since that instant, in the largest unit that fits."""
    return "never" if moment is None else relative_time(moment, now)


def told(event: Json, *, of: str | None = None, subject: str = "-") -> str:
    """Return an event in a line that cannot move the cursor. Among those ``of`` one device it is not named again.

    ``subject`` is named for an event without a device.
    """
    data = event["data"]
    device = data.get("device_id", subject)
    facts = [f"{name}={output.cell(value)}" for name, value in data.items() if name not in _APART]
    who = (f"by {_actor(data, of)}",)
    return "  ".join(map(output.cell, (event["created_at"], event["type"], *(() if of else (device,)), *who, *facts)))


def _actor(data: Json, of: str | None) -> str:
    """Return who did it: a key by its name and its id."""
    actor = str(data.get("actor", "-"))
    if actor == of:
        return "itself"
    return f"{data['actor_name']} ({actor})" if data.get("actor_name") else actor
