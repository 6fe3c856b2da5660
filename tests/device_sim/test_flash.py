"""The flash on disk: whatever kills the writer, a value is the old one or the new one, and a wipe stays a wipe."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from device_sim.actions import Area
from device_sim.flash import DirectoryFlash, Flash, MemoryFlash, manufacture
from tests.device_sim.support import GUARD_SECONDS, seeded

KILLS = 12
WRITER = """
import sys
from device_sim.flash import DirectoryFlash
from device_sim.actions import Area
flash = DirectoryFlash(sys.argv[1])
number = 0
while True:
    number += 1
    flash.write(Area.WIPED, "pairing", {"number": number, "filling": [number] * 5000})
    flash.write(Area.KEPT, "last_command", {"number": number, "filling": [number] * 50})
    print(number, flush=True)
"""


@pytest.fixture(params=["memory", "directory"])
def flash(request: pytest.FixtureRequest, tmp_path: Path) -> Flash:
    """Each kind of flash: they keep the same promises."""
    return MemoryFlash() if request.param == "memory" else DirectoryFlash(tmp_path / "flash")


def test_a_new_flash_is_empty(flash: Flash) -> None:
    """A new flash is empty and says so without being made."""
    assert flash.wiped_area == flash.kept_area == {}
    flash.erase(Area.WIPED, "device_token")


def test_areas_are_separate(flash: Flash) -> None:
    """The same name in two areas is two values."""
    flash.write(Area.WIPED, "x", {"a": [1, None, "ä"]})
    flash.write(Area.KEPT, "x", 2)
    assert (flash.wiped_area, flash.kept_area) == ({"x": {"a": [1, None, "ä"]}}, {"x": 2})
    flash.erase(Area.WIPED, "x")
    assert (flash.wiped_area, flash.kept_area) == ({}, {"x": 2})


def test_returned_values_are_copies(flash: Flash) -> None:
    """Changing the object that was written changes nothing that was written."""
    value = {"networks": ["home"]}
    flash.write(Area.WIPED, "wifi", value)
    value["networks"].append("other")
    assert flash.wiped_area["wifi"] == {"networks": ["home"]}


def test_manufacturing_values_are_written_once(flash: Flash) -> None:
    """A serial number is for life."""
    manufacture(flash, serial="SN1", firmware_version="1", cellular_apn=None)
    manufacture(flash, serial="SN2", firmware_version="2", cellular_apn="apn")
    assert flash.kept_area == {"serial_number": "SN1", "firmware_version": "1", "cellular_apn": None}


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    """A token lies in there."""
    flash = DirectoryFlash(tmp_path / "flash")
    flash.write(Area.WIPED, "device_token", "dtok_x")
    [file] = (tmp_path / "flash" / "wiped").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_temporary_file_of_a_cut_write_is_ignored(tmp_path: Path) -> None:
    """Half a file beside the value is not a value, and a wipe takes it along: it may hold a secret."""
    flash = DirectoryFlash(tmp_path)
    flash.write(Area.WIPED, "device_token", "old")
    leftover = tmp_path / "wiped" / ".device_token.new"
    leftover.write_text('"dtok_ne')
    assert flash.wiped_area == {"device_token": "old"}
    flash.erase(Area.WIPED, "device_token")
    assert list((tmp_path / "wiped").iterdir()) == []


async def test_a_kill_during_a_write_leaves_the_old_or_the_new_value(tmp_path: Path) -> None:
    """A writer killed with SIGKILL a dozen times leaves whole values, never older than what it had confirmed."""
    rng = seeded("kill")
    print("seed: kill")  # noqa: T201  # what a failure needs to be repeated
    for _ in range(KILLS):
        confirmed = await _write_and_be_killed(tmp_path, lines=rng.randrange(1, 12))
        flash = DirectoryFlash(tmp_path)
        for area in (flash.wiped_area, flash.kept_area):
            for value in area.values():
                assert set(value["filling"]) == {value["number"]}
                assert value["number"] >= confirmed


async def _write_and_be_killed(folder: Path, lines: int) -> int:
    """Start a writer, let it confirm some writes, kill it; returns the last number that it confirmed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_SECONDS):
        for _ in range(lines):
            await process.stdout.readline()
        process.kill()
        rest = await process.stdout.read()
        assert await process.wait() == -signal.SIGKILL
    numbers = [int(each) for each in rest.split()]
    return max([lines, *numbers[:-1]])
