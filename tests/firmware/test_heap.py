"""A heap of 128 KiB, with all of the firmware loaded: what a life needs, and how long commands may be."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.device_sim.support import DEVICE_ID, NOW, Signer
from tests.firmware.micropython import SCRIPTS, said

SIGNER = Signer()
BIND = {
    "id": DEVICE_ID,
    "binding_generation": 3,
    "device_token": "dtok_abcdefghijklmnopqrstuvwxyz0123456789ABCDEF",
    "grant_key": SIGNER.jwk,
    "mqtt": {"host": "mqtt.example.com", "port": 8883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
}
HEARTBEATS = 10_000
SLACK = 256  # bytes that may be in use after 10,000 heartbeats beside what was in use before


def life(folder: Path, *commands: bytes, heartbeats: int = 1) -> list[str | Path]:
    """The arguments of a life with these commands, and with so many heartbeats after them."""
    folder.mkdir()
    (folder / "bind.json").write_text(json.dumps(BIND))
    files = [folder / f"{at}.json" for at in range(len(commands))]
    for file, command in zip(files, commands, strict=True):
        file.write_bytes(command)
    return [str(heartbeats), folder / "flash", folder / "bind.json", *files]


def signed(kind: str, number: int, params: dict[str, Any] | None = None) -> bytes:
    """A command of a device that is online."""
    expires_at = None if kind == "factory_reset" else NOW + 60_000
    return SIGNER.command(kind, command_id=f"cmd_{number:026d}", params=params, expires_at=expires_at)


UPLOADS = [signed("trigger_upload", number) for number in range(18)]  # more than a journal holds


def test_no_growth_over_ten_thousand_heartbeats(tmp_path: Path) -> None:
    """With a full journal, a heartbeat leaves nothing behind; the figures go into the output of `pytest -s`."""
    (line,) = said(SCRIPTS / "heap.py", *life(tmp_path / "life", *UPLOADS, heartbeats=HEARTBEATS))
    measured = json.loads(line)
    print(measured)  # noqa: T201  # it is what this test is for
    assert measured["state"] == "online"
    assert measured["after"] <= measured["before"] + SLACK


def test_a_reset_with_a_full_journal_fits_the_heap(tmp_path: Path) -> None:
    """The whole reset fits beside it."""
    (line,) = said(SCRIPTS / "heap.py", *life(tmp_path / "life", *UPLOADS, signed("factory_reset", 99)))
    assert json.loads(line)["state"] == "unprovisioned"


@pytest.mark.parametrize(("kib", "heap"), [(8, "128k"), (15, "192k")])
def test_a_command_with_long_params_fits_the_heap(tmp_path: Path, kib: int, heap: str) -> None:
    """Params of 8 KiB are obeyed on this heap; the most that a gateway sends, 16 KiB, need a larger one."""
    large = signed("trigger_upload", 1, {f"name{number}": "x" * 100 for number in range(kib * 1024 // 110)})
    assert len(large) > kib * 1024
    (line,) = said(SCRIPTS / "heap.py", *life(tmp_path / "life", large), heap=heap)
    assert json.loads(line)["state"] == "online"
    assert [each["status"] for each in journal(tmp_path)] == ["executed"]


def journal(folder: Path) -> list[dict[str, Any]]:
    """The outcomes in the flash of a life."""
    kept: list[dict[str, Any]] = json.loads((folder / "life" / "flash" / "kept" / "last_commands.json").read_text())
    return kept
