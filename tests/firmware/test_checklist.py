"""Lines of the checklist that the state machine of the firmware holds by itself, each as a test of its name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, TOKEN, Signer
from tests.firmware.bench import Action, Board, acknowledged, board, written

FACTORY = {"serial_number": "SN1", "firmware_version": "1.4.2", "cellular_apn": None}
SIGNER = Signer()
LINK_UP = ["link_up", "wifi", "mqtt"]
TYPE = "trigger_upload"


@pytest.fixture(name="process", scope="module")
def process_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One process for all tests; each starts with a new flash."""
    with board(tmp_path_factory.mktemp("checklist")) as process:
        yield process


@pytest.fixture(name="device")
def device_fixture(process: Board) -> Board:
    """A device that is bound and online, generation 3."""
    process.start({}, FACTORY)
    bind(process, 3)
    return process


def bind(device: Board, generation: int) -> None:
    """Bind it, and bring it online."""
    answer = {
        "id": DEVICE_ID,
        "binding_generation": generation,
        "device_token": TOKEN,
        "grant_key": SIGNER.jwk,
        "mqtt": {"host": "h", "port": 1883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
    }
    device.give(["provisioned", answer, []], NOW)
    device.give(LINK_UP, NOW)


def command(kind: str = TYPE, **changes: Any) -> list[Any]:
    """A signed command, as an event."""
    return ["command", kind, SIGNER.command(kind, **changes).decode()]


def reset(device: Board) -> list[Action]:
    """Reset it to its end; the actions."""
    device.give(command("factory_reset"), NOW)
    actions = device.give(["published", len(device.sent) - 1], NOW)
    return actions + device.give(["published", len(device.sent) - 1], NOW)


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    """The payloads of the messages among the actions."""
    return [json.loads(action[2]) for action in actions if action[0] == "publish"]


def order(actions: list[Action]) -> list[str]:
    """Names of what is written, erased and published, in order."""
    told = {"write": 2, "erase": 2, "publish": 5, "reboot": 0}
    return [f"{each[0]} {each[told[each[0]]]}" for each in actions if each[0] in told]


@pytest.mark.checklist("C19")
def test_sent_at_is_omitted_while_the_clock_is_not_set(device: Board) -> None:
    """The heartbeat goes without `sent_at`, and has it again as soon as the clock is right."""
    (without,) = sent(device.give(["heartbeat_due"], None))
    assert "sent_at" not in without
    (with_time,) = sent(device.give(["heartbeat_due"], NOW + 60_000))
    assert with_time["sent_at"] == "2026-11-01T12:01:00.000Z"


@pytest.mark.checklist("C20")
def test_an_empty_payload_drops_a_reset_that_has_not_started(device: Board) -> None:
    """Nothing is acknowledged; the reset that waits for the PUBACK of `delivered` is dropped, and nothing is wiped."""
    assert sent(device.give(["command", TYPE, ""], NOW)) == []
    device.give(command("factory_reset"), NOW)
    assert sent(device.give(["command", "factory_reset", ""], NOW)) == []
    assert order(device.give(["published", len(device.sent) - 1], NOW)) == []
    assert (device.state, device.flash()[0]["device_token"]) == ("online", TOKEN)


@pytest.mark.checklist("C22")
def test_an_unknown_key_is_refused_and_not_requested(device: Board) -> None:
    """A grant of another key, whatever its `kid` says: `grant_invalid`, and not one action that asks for a key."""
    other = ["command", TYPE, Signer(bytes(range(1, 33))).command(TYPE).decode()]
    actions = device.give(other, NOW)
    assert acknowledged(actions) == [("failed", "grant_invalid")]
    assert {action[0] for action in actions} == {"tell", "publish"}


@pytest.mark.checklist("C23")
@pytest.mark.parametrize("params", [{}, {"minutes": 6}, {"minutes": 5, "more": 1}, {"minutes": "5"}])
def test_params_that_differ_from_the_signed_ones_are_refused(device: Board, params: dict[str, Any]) -> None:
    """`grant_invalid`; the same params in another form are the same."""
    changed = command(params={"minutes": 5}, fields={"params": params})
    assert acknowledged(device.give(changed, NOW)) == [("failed", "grant_invalid")]
    missing = command(params={"minutes": 5}, claims={"par": None})
    assert acknowledged(device.give(missing, NOW)) == [("failed", "grant_invalid")]
    good = command(params={"minutes": 5})
    good[2] = good[2].replace('"minutes": 5', '"minutes":\n5.0')
    assert acknowledged(device.give(good, NOW)) == [("delivered", None), ("executed", None)]


@pytest.mark.checklist("C24")
def test_an_earlier_number_of_the_same_type_is_refused(device: Board) -> None:
    """`stale_sequence`, nothing done and nothing kept; the largest number is exact, and the next binding starts new."""
    last = 2**53 - 1
    earlier = command(command_id="cmd_earlier", claims={"seq": last - 1})
    later = command(command_id="cmd_later", claims={"seq": last})
    assert acknowledged(device.give(later, NOW)) == [("delivered", None), ("executed", None)]
    actions = device.give(earlier, NOW)
    assert (acknowledged(actions), written(actions)) == ([("failed", "stale_sequence")], set())
    assert device.flash()[1]["last_sequences"]["last"][TYPE]["seq"] == last
    assert acknowledged(device.give(command(claims={"seq": None}), NOW)) == [("failed", "grant_invalid")]
    assert acknowledged(device.give(command("stop_recording", claims={"seq": 1}), NOW))[-1] == ("executed", None)


@pytest.mark.checklist("C25")
def test_the_number_is_stored_before_the_command_is_executed(device: Board) -> None:
    """With the generation and the id, before `delivered` and before anything is wiped."""
    actions = order(device.give(command("factory_reset"), NOW))
    assert actions == ["write last_sequences", "publish delivered"]
    stored = device.flash()[1]["last_sequences"]
    assert (stored["generation"], stored["last"]["factory_reset"]["id"]) == (3, COMMAND_ID)
    reset(device)
    bind(device, 5)
    assert acknowledged(device.give(command(generation=5, claims={"seq": 1}), NOW))[-1] == ("executed", None)
    assert device.flash()[1]["last_sequences"]["generation"] == 5


@pytest.mark.checklist("C26")
def test_a_command_of_another_generation_is_refused(device: Board) -> None:
    """An older one: `stale_generation`; a newer one: `generation_mismatch`. Nothing is done."""
    for generation, code in ((2, "stale_generation"), (4, "generation_mismatch")):
        actions = device.give(command("factory_reset", command_id=f"cmd_{code}", generation=generation), NOW)
        assert acknowledged(actions) == [("failed", code)]
    assert (device.state, device.flash()[0]["device_token"]) == ("online", TOKEN)


@pytest.mark.checklist("C27")
def test_each_command_is_executed_once(device: Board) -> None:
    """A known id repeats the same bytes, also after a reset; a forgery uses up no id."""
    forged = command(command_id="cmd_1", claims={"aud": "dev_other"})
    assert acknowledged(device.give(forged, NOW)) == [("failed", "grant_invalid")]
    real = command(command_id="cmd_1")
    first = sent(device.give(real, NOW))[-1]
    assert sent(device.give(real, NOW)) == [first]
    for number in range(20):
        device.give(command("stop_recording", command_id=f"cmd_stop_{number}"), NOW)
    assert sent(device.give(real, NOW)) == [first]
    executed = next(each for each in sent(reset(device)) if each["status"] == "executed")
    bind(device, 5)
    again = device.give(command("factory_reset"), NOW)
    assert sent(again) == [executed]
    assert (device.state, written(again)) == ("online", set())


@pytest.mark.checklist("C29", "C30", "C31", "C32", "C34")
def test_the_steps_of_a_reset_are_in_order(device: Board) -> None:
    """`delivered`, its PUBACK, the receipt in flash, the wipe, `executed` with that receipt, the reboot, unpaired."""
    accepted = order(device.give(command("factory_reset"), NOW))
    assert accepted[-1] == "publish delivered"
    begun = device.give(["published", len(device.sent) - 1], NOW)
    assert order(begun) == [
        "write reset_in_progress",
        "erase device_token",
        "erase pairing",
        "erase wifi_networks",
        "write last_commands",
        "write last_command",
        "erase reset_in_progress",
        "publish executed",
    ]
    receipt = begun[0][3]["receipt"]
    assert sent(begun)[0]["receipt"] == receipt
    rebooted = device.give(["published", len(device.sent) - 1], NOW)
    assert order(rebooted) == ["reboot reboot"]
    assert device.flash()[1]["last_command"]["receipt"] == receipt


@pytest.mark.checklist("C36")
def test_the_last_reset_is_repeated_in_heartbeats(device: Board) -> None:
    """Over MQTT in the heartbeats 1, 2, 4, 8 of each connection, until `errors` refuses it."""
    reset(device)
    bind(device, 5)
    for _ in range(2):
        first = sent(device.give(LINK_UP, NOW))[-1]
        rest = [sent(device.give(["heartbeat_due"], NOW + beat))[0] for beat in range(8)]
        carrying = [number for number, each in enumerate([first, *rest], 1) if "last_command" in each]
        assert carrying == [1, 2, 4, 8]
    device.give(["errors", json.dumps({"code": "receipt_invalid", "field": "last_command.receipt"})], NOW)
    assert "last_command" not in device.flash()[1]
    assert "last_command" not in sent(device.give(LINK_UP, NOW))[-1]
