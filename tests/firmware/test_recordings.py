"""Recordings on the firmware: labelled by generation, uploaded under no other, kept or wiped by a reset."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.device_sim.support import DEVICE_ID, NOW, Signer
from tests.firmware.bench import Action, Board, board

SIGNER = Signer()
FACTORY = {"serial_number": "SN1", "firmware_version": "1.4.2", "cellular_apn": None}
OLD, OWN = {"rec_old": 1}, {"rec_a": 3, "rec_b": 3}
LINK_UP = ["link_up", "wifi", "mqtt"]


def bind(generation: int) -> list[Any]:
    """The binding that a companion app writes."""
    answer = {
        "id": DEVICE_ID,
        "binding_generation": generation,
        "device_token": f"dtok_{generation}",
        "grant_key": SIGNER.jwk,
        "mqtt": {"host": "h", "port": 1883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
    }
    return ["provisioned", answer, [{"ssid": "home", "psk": "secret"}]]


def command(kind: str, number: int, *, generation: int = 3, params: dict[str, Any] | None = None) -> list[Any]:
    """A good command."""
    payload = SIGNER.command(kind, command_id=f"cmd_{number}", generation=generation, params=params)
    return ["command", kind, payload.decode()]


@pytest.fixture(name="device", scope="module")
def device_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One process for all tests; each starts with a new flash."""
    with board(tmp_path_factory.mktemp("recordings")) as device:
        yield device


def start(device: Board) -> None:
    """A device that is online with two recordings of its binding, generation 3, and one of an earlier owner."""
    device.start({}, {**FACTORY, "recordings": {**OLD, **OWN}})
    device.give(bind(3), NOW)
    device.give(LINK_UP, NOW)


def stored(device: Board) -> dict[str, int]:
    """The recordings in the flash, with the generation of each."""
    return dict(device.flash()[1].get("recordings", {}))


def uploads(actions: list[Action]) -> list[tuple[str, int, int]]:
    """Recording, its generation and that of the binding of each upload."""
    return [(each[1], each[2], each[3]["binding_generation"]) for each in actions if each[0] == "upload"]


def pending(device: Board) -> int:
    """What the next heartbeat says."""
    number: int = json.loads(device.give(["heartbeat_due"], NOW)[-1][2])["pending_recordings"]
    return number


def reset(device: Board, recordings: str, number: int = 9) -> dict[str, Any]:
    """Reset the device without a power cut; return the result of its `executed`."""
    device.give(command("factory_reset", number, params={"recordings": recordings}), NOW)
    done = device.give(["published", len(device.sent) - 1], NOW)
    result: dict[str, Any] = json.loads(next(each[2] for each in done if each[0] == "publish"))["result"]
    device.give(["published", len(device.sent) - 1], NOW)
    return result


@pytest.mark.checklist("C40")
def test_a_recording_is_uploaded_under_its_own_generation_only(device: Board) -> None:
    """It is labelled when it begins; what a reset kept is neither pending nor uploaded under the next binding."""
    start(device)
    device.give(command("start_recording", 1), NOW)
    assert stored(device) == {**OLD, **OWN, "cmd_1": 3}
    assert pending(device) == 2
    done = device.give(command("trigger_upload", 2), NOW)
    assert uploads(done) == [("rec_a", 3, 3), ("rec_b", 3, 3)]
    assert stored(device) == {**OLD, "cmd_1": 3}
    device.give(command("stop_recording", 3), NOW)
    assert pending(device) == 1
    reset(device, "keep")
    device.give(bind(5), NOW)
    device.give(LINK_UP, NOW)
    assert pending(device) == 0
    assert uploads(device.give(command("trigger_upload", 4, generation=5), NOW)) == []
    assert stored(device) == {**OLD, "cmd_1": 3}


@pytest.mark.checklist("C42")
def test_the_result_of_a_reset_counts_recordings(device: Board) -> None:
    """Wiped or kept, those of all generations, and how each thing was wiped."""
    three = ["device_token", "pairing", "wifi_networks"]
    for recordings, counts, wiped in (
        ("keep", {"wiped": 0, "kept": 3}, three),
        ("wipe", {"wiped": 3, "kept": 0}, [*three, "recordings"]),
    ):
        start(device)
        result = reset(device, recordings)
        assert result["recordings"] == counts
        assert result["wiped"] == wiped
        assert result["technique"] == dict.fromkeys(wiped, "deleted")
        assert ("recordings" in result["kept"]) == (recordings == "keep")


@pytest.mark.checklist("C41")
@pytest.mark.parametrize("recordings", ["keep", "wipe"])
def test_a_power_cut_changes_nothing_about_the_recordings(device: Board, recordings: str) -> None:
    """Before each action of the reset: gone with `wipe`, all there with `keep`, and counted rightly."""
    for cut in range(9 if recordings == "wipe" else 8):
        start(device)
        device.give(command("factory_reset", 9, params={"recordings": recordings}), NOW)
        device.give(["published", len(device.sent) - 1], NOW, cut)
        if cut == 0:  # the power went before the reset was written down
            assert stored(device) == {**OLD, **OWN}
            device.give(LINK_UP, NOW)
            reset(device, recordings)
        assert device.state == "unprovisioned", cut
        assert stored(device) == ({} if recordings == "wipe" else {**OLD, **OWN}), cut
        [outcome] = device.flash()[1]["last_commands"]
        assert outcome["result"]["recordings"]["wiped"] == (3 if recordings == "wipe" else 0), cut
        device.give(bind(5), NOW)  # what the next owner records does not bring back from RAM what was wiped
        device.give(LINK_UP, NOW)
        device.give(command("start_recording", 10, generation=5), NOW)
        assert stored(device) == {**({} if recordings == "wipe" else {**OLD, **OWN}), "cmd_10": 5}, cut
