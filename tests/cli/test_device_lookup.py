"""Devices on the command line by id, by serial number and by project."""

import json
import unicodedata

from tests.cli.support import Cli


def test_a_serial_number_selects_a_device(cli: Cli) -> None:
    """Wherever a command takes a device; what is done is done to that one."""
    bound, other = cli.bound("BP-1"), cli.bound("BP-2")
    assert cli.json("devices", "show", "BP-1")["id"] == bound["id"]
    assert cli.json("devices", "unbind", "BP-1")["id"] == bound["id"]
    assert cli.json("devices", "bind", "BP-1", "eu_2")["id"] == bound["id"]
    reset = cli.json("devices", "reset", "BP-1", "--yes")
    assert reset["id"] == bound["id"]
    command = cli.json("commands", "list", "BP-1")[0]["id"]
    assert cli.json("commands", "show", "BP-1", command)["device_id"] == bound["id"]
    assert cli.json("devices", "cancel-resets", "BP-1", other["id"], "--dry-run")[0]["id"] == bound["id"]
    assert cli.json("commands", "cancel", "BP-1", command)["status"] == "cancelled"
    tail = cli("events", "tail", "--device", "BP-2", "--json").out.splitlines()
    assert {json.loads(line)["data"]["device_id"] for line in tail} == {other["id"]}
    assert cli.json("devices", "show", other["id"])["status"] == "bound"
    third = cli.json("devices", "register", unicodedata.normalize("NFD", "Büro"))
    for form in ("NFC", "NFD"):
        assert cli.json("devices", "show", unicodedata.normalize(form, "Büro"))["id"] == third["id"]
    assert "should not look like the id" in cli("devices", "register", other["id"], code=1).err


def test_a_deleted_device_is_found_by_its_serial_number(cli: Cli) -> None:
    """It is brought back by it, and its events are found by it; nothing else is done to it."""
    bound = cli.bound("BP-1")
    cli("devices", "delete", "BP-1", "--yes")
    cli("devices", "show", "BP-1", code=4)
    assert len(cli("events", "tail", "--device", "BP-1").out.splitlines()) == 5
    assert cli.json("devices", "restore", "BP-1")["id"] == bound["id"]


def test_an_unknown_serial_number_is_an_error(cli: Cli) -> None:
    """The error names both ways to look for it, and works as printed: on this data directory."""
    error = cli("devices", "show", "BP-9", code=4).err
    assert "neither by id nor by serial number" in error
    assert f"gateway devices list --search TEXT --data-dir {cli.data_dir}" in error
    cli("devices", "cancel-resets", "BP-9", "--yes", code=4)


def test_an_ambiguous_serial_number_is_an_error(cli: Cli) -> None:
    """Says in which; with one of them named it is that one's, and one that a single project has is found."""
    cli("projects", "create", "north")
    here, there = (cli.json("devices", "register", "BP-1", "--project", each) for each in ("default", "north"))
    error = cli("devices", "show", "BP-1", code=2).err
    assert all(each in error for each in ("BP-1", "--project", here["project_id"], there["project_id"]))
    assert cli.json("devices", "show", "BP-1", "--project", "north")["id"] == there["id"]
    alone = cli.json("devices", "register", "BP-2", "--project", "north")
    assert cli.json("devices", "show", "BP-2")["id"] == alone["id"]
