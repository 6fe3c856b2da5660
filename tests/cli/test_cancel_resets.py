"""``gateway devices cancel-resets``: a fleet that was reset by mistake is held back as far as that is possible."""

import pytest

from tests.cli.support import Cli


def reset(cli: Cli, number: int) -> list[str]:
    """So many devices with an open reset."""
    ids = [cli.bound(f"BP-{each}", f"eu_{each}")["id"] for each in range(number)]
    for device_id in ids:
        cli("devices", "reset", device_id, "--yes")
    return ids


def test_all_open_resets_are_cancelled(cli: Cli) -> None:
    """Each open reset is cancelled, whichever caller asked for it; devices without one are left alone."""
    bound = cli.bound("BP-9", "eu_9")["id"]
    ids = reset(cli, 3)
    said = cli("devices", "cancel-resets", "--all", "--yes")
    assert {row[0]: row[1] for row in said.rows} == dict.fromkeys(ids, "cancelled")
    assert said.err.strip() == "3 cancelled"
    assert cli.json("devices", "show", bound)["status"] == "bound"
    assert [cli.json("commands", "list", each)[0]["status"] for each in ids] == ["cancelled"] * 3
    assert "No reset is open." in cli("devices", "cancel-resets", "--all", "--yes").err


def test_named_devices_are_cancelled(cli: Cli) -> None:
    """Only these. An unknown device is reported with its reason, and holds up no other."""
    one, two = reset(cli, 2)
    outcomes = cli.json("devices", "cancel-resets", one, "dev_never", "--yes")
    assert [(each["id"], each["outcome"]) for each in outcomes] == [(one, "cancelled"), ("dev_never", "not_found")]
    assert [each["id"] for each in cli.json("devices", "list", "--condition", "reset_pending")] == [two]


def test_a_dry_run_asks_nothing_and_changes_nothing(cli: Cli) -> None:
    """It is what one types first, in a hurry."""
    (device,) = reset(cli, 1)
    assert cli.json("devices", "cancel-resets", "--all", "--dry-run")[0]["outcome"] == "would_cancel"
    assert cli.json("commands", "list", device)[0]["status"] == "pending"


def test_cancelling_asks_for_confirmation(cli: Cli) -> None:
    """Without a terminal ``--yes`` is needed; devices and ``--all`` exclude each other, and one of them is needed."""
    (device,) = reset(cli, 1)
    assert "add --yes" in cli("devices", "cancel-resets", "--all", code=2).err
    for wrong in ([], [device, "--all"]):
        assert "Name the devices, or say --all." in cli("devices", "cancel-resets", *wrong, "--yes", code=2).err
    assert cli.json("commands", "list", device)[0]["status"] == "pending"


@pytest.mark.parametrize(("option", "value"), [("--search", "bp-1"), ("--condition", "reset_pending")])
def test_devices_are_selected_by_filter(cli: Cli, option: str, value: str) -> None:
    """By text and by condition, as over HTTP."""
    (waiting,) = reset(cli, 1)
    other = cli.bound("BP-1", "eu_1")["id"]
    found = [each["id"] for each in cli.json("devices", "list", option, value)]
    assert found == [other if option == "--search" else waiting]
