"""``gateway cells``: brokers and their devices, moves and drains, in the registry."""

import json
from pathlib import Path

import pytest

from gateway.cli import main
from tests.domain.brokers import disown, with_homes

HOMES = ("--cells", "home")


def _ran(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["cells", *words]) == 0
    return capsys.readouterr().out


def test_the_devices_of_a_broker_that_is_gone_are_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is drained, its devices are listed and moved, and it can be forgotten."""
    place = ("--data-dir", str(tmp_path))
    with with_homes(tmp_path) as world:
        ids = [world.bound(f"SN-{number}")[0] for number in range(4)]
        disown(world, "default")
    drained = json.loads(_ran(capsys, "drain", "default", "--json", *HOMES, *place))
    assert drained == {"broker_id": "default", "draining": True, "devices": 2}
    assert _ran(capsys, "devices", "default", *place).split() == [ids[0], ids[2]]
    for moved, unchanged in ((1, 0), (0, 1)):
        one = json.loads(_ran(capsys, "move", ids[0], "--to", "brk_b", "--json", *HOMES, *place))
        assert one == {"moved": moved, "unchanged": unchanged, "wiping": []}
    rest = json.loads(_ran(capsys, "move", "--all-from", "default", "--to", "brk_b", "--json", *HOMES, *place))
    assert rest["moved"] == 1
    listed = json.loads(_ran(capsys, "list", "--json", *HOMES, *place))
    assert [(each["broker_id"], each["devices"], each["draining"]) for each in listed["brokers"]] == [
        ("default", 0, True),
        ("brk_b", 4, False),
    ]
    assert "brk_b.example.org" in _ran(capsys, "list", *place)
    assert main(["registry", "forget-broker", "default", "--yes", *place]) == 0


def test_what_cannot_be_done_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With an exit code that says why."""
    place = ("--data-dir", str(tmp_path))
    with with_homes(tmp_path) as world:
        device_id, _ = world.bound()
    assert main(["cells", "move", device_id, "--to", "brk_b", *place]) == 5
    assert "The setting 'cells' is 'any'" in capsys.readouterr().err
    assert main(["cells", "move", device_id, "--to", "brk_x", *HOMES, *place]) == 4
    assert "It has: default, brk_b" in capsys.readouterr().err
    assert main(["cells", "move", "--to", "brk_b", *HOMES, *place]) == 2
    assert main(["cells", "devices", "brk_x", *place]) == 4
    assert main(["cells", "move", "dev_x", "--to", "brk_b", *HOMES, *place]) == 4
