"""Every vector of the protocol, good and hostile, on the firmware."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from device_sim.wire import milliseconds
from tests.firmware.bench import Board, acknowledged, board, written
from tests.firmware.calls import call, calls
from tests.support import vectors
from tests.support.vectors import COMMANDS, NAMES, RESETS_WITH_RECORDINGS, VECTORS, WRITTEN_FOR

NOW = milliseconds(VECTORS["now"])
LARGE = "512k"  # a payload of 64 KiB arrives as a line of text here; the MQTT client cuts it off before
FORGERIES = [each for each in COMMANDS if each["answer"] == "grant_invalid" and "grant_key_x" not in each]


@pytest.fixture(name="device", scope="module")
def device_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One process for all vectors; each starts with a new flash."""
    with board(tmp_path_factory.mktemp("vectors"), heap=LARGE) as device:
        yield device


def arrive(device: Board, vector: dict[str, Any]) -> list[Any]:
    """Let the command of a vector arrive at its device."""
    device.start(vectors.wiped_area(vector), vectors.kept_area(vector))
    event = ["command", vector["topic"], vector["payload"], vector.get("trailing_blanks", 0)]
    return device.give(event, NOW)


@pytest.mark.checklist("C39")
@pytest.mark.parametrize("vector", COMMANDS, ids=NAMES)
def test_each_command_vector_is_answered_as_specified(device: Board, vector: dict[str, Any]) -> None:
    """The device answers what the vector says; a refusal changes the flash only where the protocol says so."""
    actions = arrive(device, vector)
    assert acknowledged(actions) == vectors.expected(vector)
    if vector["answer"] != "delivered":
        assert written(actions) == WRITTEN_FOR.get(vector["answer"], set())
        assert device.state == "provisioned"


@pytest.mark.checklist("C39", "C41", "C42")
def test_a_reset_keeps_or_wipes_recordings_as_specified(device: Board) -> None:
    """`result.recordings` counts them, and the flash has no more and no less than the vector says."""
    for vector in RESETS_WITH_RECORDINGS:
        arrive(device, vector)
        done = device.give(["published", len(device.sent) - 1], NOW)
        result = json.loads(next(action[2] for action in done if action[0] == "publish"))["result"]
        assert result["recordings"] == vector["executed"]["recordings"], vector["name"]
        assert device.flash()[1].get("recordings", {}) == vector["executed"]["left"], vector["name"]


def test_a_forgery_uses_up_no_id(device: Board) -> None:
    """The real command is obeyed after each of them."""
    device.start(vectors.wiped_area({}), {})
    for vector in FORGERIES:
        assert acknowledged(device.give(["command", vector["topic"], vector["payload"]], NOW)) == [
            ("failed", "grant_invalid")
        ]
    good = COMMANDS[NAMES.index("good")]
    assert acknowledged(device.give(["command", good["topic"], good["payload"]], NOW)) == [("delivered", None)]


def test_computed_values_match_the_vectors() -> None:
    """Password, receipts, and the canonical form of params with its digest."""
    token, about = VECTORS["device_token"], (VECTORS["command_id"], VECTORS["binding_generation"])
    assert call("mqtt_password", token) == VECTORS["mqtt_password"]
    made = calls(*(("receipt", token, about[0], status, about[1]) for status in VECTORS["receipts"]))
    assert made == list(VECTORS["receipts"].values())
    texts = calls(*(("canonical_text", json.dumps(each["params"]).encode()) for each in VECTORS["params"]))
    assert [text.decode() for text in texts] == [each["canonical"] for each in VECTORS["params"]]
    digests = calls(*(("base64url", hashlib.sha256(text).digest()) for text in texts))
    assert digests == [each["par"] for each in VECTORS["params"]]


def test_a_reset_sends_the_receipts_of_the_vectors(device: Board) -> None:
    """The acknowledgements of a whole reset carry them."""
    good = COMMANDS[NAMES.index("good")]
    delivered = arrive(device, good)[-1]
    executed = device.give(["published", len(device.sent) - 1], NOW)[-1]
    for action, status in ((delivered, "delivered"), (executed, "executed")):
        assert json.loads(action[2])["receipt"] == VECTORS["receipts"][status]
