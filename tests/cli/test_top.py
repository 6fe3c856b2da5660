"""``gateway top`` printed once, and how its live view is drawn."""

from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions

from gateway.cli.fleet_view import FIGURES, ONLY, Glance
from gateway.cli.top_screen import ShownDevice, drawn, rows_for
from tests.cli.support import Cli

HOSTILE = "\x1b[2J[red]\nW\u200b" + "W" * 90
COUNTS = dict.fromkeys(FIGURES, 1234567)


def test_without_a_terminal_it_prints_once(cli: Cli) -> None:
    """How many there are and in what state, the devices, and what happened: to the letter, an id is never cut."""
    device = cli.bound("BP-1")
    cli.rename(cli.json("devices", "register", "BP-2")["id"], "a\x1b[2Jb")
    said = cli("top").out.splitlines()
    assert said[0] == (
        "default: 2 devices, ? online, ? offline, 2 never seen, 0 low battery, 0 storage full, 0 pending resets"
    )
    assert said[2].split()[:3] == ["SERIAL", "NAME", "CONNECTION"]
    assert [line.split()[0] for line in said[3:5]] == ["BP-2", "BP-1"]
    assert "a\\x1b[2Jb" in said[3]
    assert said[4].endswith(device["id"])
    assert [line.split()[1] for line in said[6:]] == [
        "key.created",
        "device.registered",
        "device.bound",
        "device.registered",
    ]
    assert cli("top", "--once").out.splitlines()[0] == said[0]


def test_json_output_has_every_figure(cli: Cli) -> None:
    """The same as one document; ``--only`` narrows the devices, not the figures."""
    device = cli.bound("BP-1")
    cli("devices", "register", "BP-2")
    cli("devices", "reset", device["id"], "--yes")
    whole = cli.json("top", "--only", "resets")
    assert whole["project_name"] == "default"
    assert (whole["stats"]["total_count"], whole["stats"]["pending_reset_count"]) == (2, 1)
    assert [each["serial_number"] for each in whole["devices"]] == ["BP-1"]
    assert whole["has_more"] is False
    assert whole["events"][-1]["type"] == "reset.requested"


def test_errors_without_a_registry_or_with_a_wrong_argument(empty: Cli) -> None:
    """The exit codes of all commands."""
    assert empty("top", code=4).err.startswith("error: ")
    empty("top", "--only", "broken", code=2)
    empty("watch", "dev_1", code=4)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (104, 30), (140, 40), (200, 60)])
@pytest.mark.parametrize("devices", [0, 2, 100])
@pytest.mark.parametrize("trouble", [None, HOSTILE * 3])
def test_the_screen_fits_the_terminal(size: tuple[int, int], devices: int, trouble: str | None) -> None:
    """Nothing is wider or higher than the terminal, whatever devices call themselves; no escape gets through."""
    device: dict[str, Any] = {
        "id": "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
        "serial_number": HOSTILE,
        "name": HOSTILE,
        "connection": "online",
        "battery_percent": 3,
        "storage_used_mb": 8_192,
        "storage_total_mb": 8_192,
        "signal_strength_dbm": -61.5,
        "recording_state": {"device_state": HOSTILE, "pending_recordings": 1, "flags": 0, "connection_type": ["wifi"]},
        "last_heartbeat_at": "2026-11-25T08:00:00.000Z",
        "end_user_id": "eu_1",
    }
    event = {
        "id": "evt_1", "type": "reset.requested", "created_at": "2026-11-25T08:00:00.000Z",
        "data": {"device_id": device["id"], "actor": "key_1", "words": HOSTILE},
    }  # fmt: skip
    width, height = size
    rows, _ = rows_for(height)
    fleet = Glance(COUNTS, [device] * min(rows, devices), more=True)
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    shown = ShownDevice(HOSTILE, fleet, [event] * 20, list(ONLY)[1], 0, trouble)
    lines = console.render_lines(drawn(shown, ConsoleDimensions(width, height)))
    assert len(lines) <= height
    for line in lines:
        text = "".join(segment.text for segment in line)
        assert sum(segment.cell_length for segment in line) <= width
        assert "\x1b" not in text
