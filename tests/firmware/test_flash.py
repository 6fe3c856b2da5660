"""The firmware's flash: whole or not at all, few writes, damaged files, and the same files as the simulator's."""

import ast
import json
from pathlib import Path

from device_sim.actions import Area
from device_sim.flash import DirectoryFlash
from tests.firmware.bench import board
from tests.firmware.micropython import SCRIPTS, said

OLD, NEW = {"value": ["old"]}, {"value": ["new"]}


def test_a_change_happens_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """The power goes before each call of the system: the old value, or the new one, or none after an erase."""
    written, erased = map(ast.literal_eval, said(SCRIPTS / "dying_flash.py", tmp_path / "flash"))
    assert written[-2:] == ["whole", NEW]
    assert OLD in written[:-2]
    assert all(each in (OLD, NEW) for each in written[:-2])
    assert erased[-2:] == ["whole", {}]
    assert all(each in (OLD, {}) for each in erased[:-2])
    assert len(written) > 8


def test_the_files_are_those_of_the_simulator(tmp_path: Path) -> None:
    """Each reads what the other one has written, so a device can be looked at with the same tools."""
    wiped, kept = (
        {"device_token": "dtok_1"},
        {"serial_number": "SN1", "cellular_apn": None, "notes": [{"ü": 1}]},
    )
    with board(tmp_path) as device:
        device.start(wiped, kept)
    flash = DirectoryFlash(tmp_path / "flash-1")
    assert (flash.wiped_area, flash.kept_area) == (wiped, kept)
    flash.write(Area.KEPT, "firmware_version", "2.0")
    with board(tmp_path) as device:
        device.start({}, {})
        assert device.flash() == (wiped, {**kept, "firmware_version": "2.0"})


def test_an_equal_value_costs_no_write(tmp_path: Path) -> None:
    """The file is not touched, whatever the order of its members."""
    value = {"b": [1, {"d": None, "c": "x"}], "a": True}
    with board(tmp_path) as device:
        device.start({}, {"value": value})
    file = tmp_path / "flash-1" / "kept" / "value.json"
    before = file.stat()
    with board(tmp_path) as device:
        device.start({}, {"value": dict(reversed(value.items()))})
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with board(tmp_path) as device:
        device.start({}, {"value": {**value, "a": False}})
        assert json.loads(file.read_text()) == {**value, "a": False}


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    """And the rest of an interrupted write is not read; an erase removes it, too."""
    with board(tmp_path) as device:
        device.start({"device_token": "dtok_1"}, {"serial_number": "SN1"})
    area = tmp_path / "flash-1" / "wiped"
    (area / "pairing.json").write_bytes(b'{"half')
    (area / ".device_token.new").write_bytes(b'"dtok_2"')
    with board(tmp_path) as device:
        device.start({}, {})
        assert device.flash() == ({"device_token": "dtok_1"}, {"serial_number": "SN1"})
        assert device.state == "unprovisioned"
        device.give(["local_reset"], None)
    assert list(area.iterdir()) == []
