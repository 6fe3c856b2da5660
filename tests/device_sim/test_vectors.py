"""Every vector of the protocol, good and hostile, on a whole simulated device."""

import json
from typing import Any

import pytest

from device_sim import wire
from device_sim.actions import Action, CommandReceived, EraseFlash, PowerOn, Publish, Published, WriteFlash
from device_sim.device import Device, State
from tests.device_sim.support import seeded
from tests.support import vectors
from tests.support.vectors import COMMANDS, NAMES, RESETS_WITH_RECORDINGS, VECTORS, WRITTEN_FOR

NOW = wire.milliseconds(VECTORS["now"])


def handle(vector: dict[str, Any]) -> tuple[Device, list[Action]]:
    """The device of a vector, and what it does when the command arrives."""
    device = Device(seeded())
    device.handle(PowerOn(vectors.wiped_area(vector), vectors.kept_area(vector)), NOW)
    return device, device.handle(CommandReceived(vector["topic"], vectors.payload(vector)), NOW)


@pytest.mark.parametrize("vector", COMMANDS, ids=NAMES)
def test_each_command_vector_is_answered_as_specified(vector: dict[str, Any]) -> None:
    """The device answers what the vector says; a refusal changes the flash only where the protocol says so."""
    device, actions = handle(vector)
    said = [json.loads(each.payload) for each in actions if isinstance(each, Publish)]
    assert [(each["status"], each.get("error", {}).get("code")) for each in said] == vectors.expected(vector)
    written = {each.name for each in actions if isinstance(each, WriteFlash)}
    if vector["answer"] != "delivered":
        assert written == WRITTEN_FOR.get(vector["answer"], set())
        assert device.state is State.PROVISIONED


@pytest.mark.parametrize("vector", RESETS_WITH_RECORDINGS, ids=lambda vector: vector["name"])
def test_a_reset_keeps_or_wipes_recordings_as_specified(vector: dict[str, Any]) -> None:
    """`result.recordings` counts them, and they are erased if and only if the vector says so."""
    device, actions = handle(vector)
    done = device.handle(Published(next(each for each in actions if isinstance(each, Publish))), NOW)
    [executed] = [json.loads(each.payload) for each in done if isinstance(each, Publish)]
    assert executed["result"]["recordings"] == vector["executed"]["recordings"]
    is_erased = "recordings" in {each.name for each in done if isinstance(each, EraseFlash)}
    assert is_erased == (vector["executed"]["left"] == {})


@pytest.mark.parametrize(
    "vector", [each for each in COMMANDS if each["answer"] == "grant_invalid"], ids=lambda v: v["name"]
)
def test_a_forgery_uses_up_no_id(vector: dict[str, Any]) -> None:
    """The real command is obeyed after it."""
    device, _ = handle(vector)
    good = vectors.payload(COMMANDS[NAMES.index("good")])
    actions = device.handle(CommandReceived("factory_reset", good), NOW)
    said = [each.status for each in actions if isinstance(each, Publish)]
    assert said == (["failed"] if "grant_key_x" in vector else ["delivered"])
