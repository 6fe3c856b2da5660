"""``gateway devices set``, ``heartbeats`` and ``bulk-reset``: what the API can do, from the command line."""

import json
from pathlib import Path

import pytest

from tests.cli.support import Cli


def test_only_named_fields_are_changed(cli: Cli) -> None:
    """Name, firmware version, metadata and settings; everything else stays. JSON values are JSON, others are text."""
    device = cli.bound("BP-1")["id"]
    cli("devices", "set", device, "--metadata", "keep=1", "--metadata", "drop=2")
    said = cli(
        *("devices", "set", "BP-1", "--name", "Ward 3", "--firmware-version", "1.5.0"),
        *("--metadata", "room=3b", "--metadata", 'bed="2"', "--metadata", "drop=null"),
        *("--setting", "power.auto_sleep_minutes=20", "--setting", "connection.enabled_connections.wifi=false"),
    )
    assert "Ward 3" in said.out
    shown = cli.json("devices", "show", device)
    assert (shown["name"], shown["firmware_version"]) == ("Ward 3", "1.5.0")
    assert shown["metadata"] == {"keep": 1, "room": "3b", "bed": "2"}
    assert shown["settings"]["power"]["auto_sleep_minutes"] == 20
    assert shown["settings"]["connection"]["enabled_connections"] == {"wifi": False, "cellular": True}
    cleared = cli.json("devices", "set", device, "--name", "")
    assert cleared["name"] is None


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, "Say what to change"),
        (("--metadata", "room"), 2, "should be KEY=VALUE"),
        (("--setting", "power.auto_sleep_minutes=-1"), 1, "settings.power.auto_sleep_minutes"),
        (("--setting", "power.loudness=1"), 1, "unknown field"),
        (("--setting", "power=1", "--setting", "power.auto_sleep_minutes=2"), 2, "not both"),
        (("--setting", "power.auto_sleep_minutes=2", "--setting", "power=1"), 2, "not both"),
        (("--name", "x" * 129), 1, "name"),
    ],
)
def test_an_invalid_change_is_refused(options: tuple[str, ...], code: int, says: str, cli: Cli) -> None:
    """The field is named, and the device is as it was."""
    device = cli.bound("BP-1")["id"]
    before = cli.json("devices", "show", device)
    assert says in cli("devices", "set", device, *options, code=code).err
    assert cli.json("devices", "show", device) == before


def test_devices_are_tagged_and_listed_by_tag(cli: Cli) -> None:
    """Several at once, by id or serial number; lists, the overview and the details show tags and filter by them."""
    one, two = cli.bound("BP-1")["id"], cli.json("devices", "register", "BP-2")["id"]
    said = cli("devices", "tag", one, "BP-2", "--add", "pilot", "--add", "ward-3")
    assert [[cell.strip() for cell in row] for row in said.rows] == [
        [one, "BP-1", "pilot, ward-3"],
        [two, "BP-2", "pilot, ward-3"],
    ]
    (changed,) = cli.json("devices", "tag", "BP-2", "--remove", "pilot")
    assert changed["tags"] == ["ward-3"]
    assert [each["id"] for each in cli.json("devices", "list", "--tag", "ward-3", "--tag", "pilot")] == [one]
    assert "pilot, ward-3" in cli("devices", "list").out
    assert cli.json("devices", "show", one)["tags"] == ["pilot", "ward-3"]
    glance = cli.json("top", "--tag", "pilot")
    assert (glance["stats"]["total_count"], [each["id"] for each in glance["devices"]]) == (1, [one])


def test_wrong_tags_are_named(cli: Cli) -> None:
    """Nothing to change is 2, a wrong tag 1; of several devices the others are tagged, and the exit code is 1."""
    one = cli.json("devices", "register", "BP-1")["id"]
    assert "--add or --remove" in cli("devices", "tag", one, code=2).err
    assert "add_tags.0: should be 1 to 64" in cli("devices", "tag", one, "--add", "a,b", code=1).err
    said = cli("devices", "tag", "BP-none", one, "--add", "pilot", code=1)
    assert "BP-none: There is no device" in said.err
    assert "pilot" in said.out


def test_the_heartbeat_history_is_listed(cli: Cli) -> None:
    """The newest first, as a table or JSON; limits and spans of time are honoured, and wrong ones named."""
    device = cli.bound("BP-1")["id"]
    said = cli("devices", "heartbeats", device)
    assert said.rows == []
    assert said.out.startswith("RECEIVED")
    assert cli.json("devices", "heartbeats", device, "--limit", "0") == []
    assert cli.json("devices", "heartbeats", device, "--every", "1h", "--since", "2026-11-20T00:00:00Z") == []
    assert "since" in cli("devices", "heartbeats", device, "--since", "yesterday", code=1).err
    assert "whole seconds" in cli("devices", "heartbeats", device, "--every", "0", code=2).err


def test_a_bulk_reset_shows_a_dry_run_first(cli: Cli, tmp_path: Path) -> None:
    """A dry run changes nothing; the same list is reset then, each device once, and an unknown one is named."""
    one, two = (cli.bound(f"BP-{each}", f"eu_{each}")["id"] for each in (1, 2))
    listed = tmp_path / "returned.txt"
    listed.write_text(f"# returned in November\n{one}\n\nBP-2\n{one}\n")
    dry = cli.json("devices", "bulk-reset", "--file", str(listed), "--dry-run")
    assert {each["id"] for each in dry} == {one, two}
    assert {each["status"] for each in cli.json("devices", "list")} == {"bound"}
    assert "add --yes" in cli("devices", "bulk-reset", "--file", str(listed), code=2).err
    done = cli("devices", "bulk-reset", "--file", str(listed), "--yes", "--recordings", "wipe", "--reason", "sold")
    assert {row[0].strip() for row in done.rows} == {one, two}
    assert "cancel-resets --all" in done.err
    assert cli.json("commands", "list", two)[0]["params"] == {"recordings": "wipe"}
    assert {each["status"] for each in cli.json("devices", "list")} == {"unbound"}
    partly = cli("devices", "bulk-reset", one, "dev_never", "--yes", code=1)
    assert {row[0].strip(): row[1].strip() for row in partly.rows}["dev_never"] == "not_found"
    assert "Name the devices" in cli("devices", "bulk-reset", code=2).err


def test_commands_are_queued(cli: Cli) -> None:
    """With parameters and a time to live; a second one of the type is refused, and a reset is no command to send."""
    device = cli.bound("BP-1")["id"]
    sent = cli.json("commands", "send", device, "trigger_upload", "--param", "network=wifi", "--ttl", "10m")
    assert (sent["type"], sent["status"], sent["params"]) == ("trigger_upload", "pending", {"network": "wifi"})
    assert cli.json("commands", "show", device, sent["id"])["id"] == sent["id"]
    assert "open" in cli("commands", "send", device, "trigger_upload", code=5).err
    assert "factory_reset" in cli("commands", "send", device, "factory_reset", code=2).err
    assert "whole seconds" in cli("commands", "send", device, "reboot", "--ttl", "0", code=2).err
    assert "a day (1d) at most" in cli("commands", "send", device, "reboot", "--ttl", "25h", code=2).err


def test_waiting_ends_at_the_timeout_or_with_the_command(cli: Cli) -> None:
    """Nothing takes the command: 8, and it is still open. Cancelled: 1. What cannot be fetched is not waited for."""
    device = cli.bound("BP-1")["id"]
    said = cli("commands", "send", device, "reboot", "--wait", "--timeout", "1s", code=8)
    assert "pending: waiting for the device to take it" in said.err
    (command,) = cli.json("commands", "list", device)
    assert command["status"] == "pending"
    assert "pending" in cli("devices", "reset", device, "--yes", "--wait", "--timeout", "1s", code=8).err
    never_bound = cli.json("devices", "register", "BP-2")["id"]
    unfetched = cli("devices", "reset", never_bound, "--yes", "--wait", "--json", code=8)
    assert json.loads(unfetched.out)["command"]["status"] == "pending"
    assert "nothing can fetch this reset" in unfetched.err
