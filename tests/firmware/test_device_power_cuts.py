"""The power goes before each action of a reset, once and twice: the device reaches the same end."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, TOKEN, Signer
from tests.firmware.bench import Board, board

SIGNER = Signer()
RESET = ["command", "factory_reset", SIGNER.command().decode()]
LINK_UP = ["link_up", "wifi", "mqtt"]
FACTORY = {"serial_number": "SN1", "firmware_version": "1.4.2", "cellular_apn": None}
LONGEST = 30  # actions in the life of one reset, and more


def bind(generation: int, token: str) -> list[Any]:
    """The binding that a companion app writes."""
    answer = {
        "id": DEVICE_ID,
        "binding_generation": generation,
        "device_token": token,
        "grant_key": SIGNER.jwk,
        "mqtt": {"host": "h", "port": 1883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
    }
    return ["provisioned", answer, [{"ssid": "home", "psk": "secret"}]]


class World:
    """A gateway and a broker around one device: they deliver the reset until it is acknowledged as executed."""

    def __init__(self, device: Board, cuts: list[int]) -> None:
        self.device = device
        self.cuts = cuts  # power for so many actions, then for so many after that
        self.confirmed = 0

    def live(self) -> None:
        """Bind, connect, reset; start again after each power cut, until nothing is left to do."""
        waiting: list[list[Any]] = [bind(3, TOKEN)]
        while waiting:
            if self._is_cut(waiting.pop(0)):
                waiting = [["power_on"]]
                continue
            waiting = waiting or list(self._next())

    def _is_cut(self, event: list[Any]) -> bool:
        power_for = self.cuts[0] if self.cuts else LONGEST
        spent, is_cut = self.device.try_to(event, NOW, power_for)
        if is_cut:
            self.confirmed = len(self.device.sent)  # what was under way is lost, or was confirmed to a dead device
            self.cuts.pop(0)
        elif self.cuts:
            self.cuts[0] -= spent
        return is_cut

    def _next(self) -> Iterator[list[Any]]:
        if self.confirmed < len(self.device.sent):
            self.confirmed += 1
            yield ["published", self.confirmed - 1]
        elif self.device.state == "provisioned":
            yield LINK_UP
        elif self.device.state == "online":
            yield RESET
        elif self.device.state == "unprovisioned" and not self._is_done():
            yield bind(3, TOKEN)  # the power went before the binding was whole

    def _is_done(self) -> bool:
        return "last_command" in self.device.flash()[1]


@pytest.fixture(name="device", scope="module")
def device_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One process for all cuts; each starts with a new flash."""
    with board(tmp_path_factory.mktemp("power")) as device:
        yield device


def check_the_end(device: Board, cuts: str) -> None:
    """Unpaired, wiped, not in a reset; the outcome is kept and goes into the first heartbeat of the next binding."""
    wiped, kept = device.flash()
    assert (device.state, wiped) == ("unprovisioned", {}), cuts
    assert set(kept) == {*FACTORY, "last_commands", "last_sequences", "last_command"}, cuts
    assert [(each["command_id"], each["status"]) for each in kept["last_commands"]] == [(COMMAND_ID, "executed")], cuts
    executed = {action[2] for action in device.sent if action[5] == "executed"}
    assert len(executed) <= 1, cuts
    device.give(bind(5, "dtok_next"), NOW)
    heartbeat = json.loads(device.give(LINK_UP, NOW)[-1][2])
    assert heartbeat["last_command"] == kept["last_command"], cuts
    again = device.give(RESET, NOW)
    assert [action[5] for action in again if action[0] == "publish"] == ["executed"], cuts
    assert not [action for action in again if action[0] in {"write", "erase"}], cuts


def test_one_power_cut_ends_in_the_same_state(device: Board) -> None:
    """Before each action of provisioning and reset."""
    happened = set()
    for power_for in range(LONGEST):
        world = World(device, [power_for])
        device.start({}, FACTORY)
        world.live()
        check_the_end(device, f"power for {power_for} actions")
        happened.add(not world.cuts)
    assert happened == {True, False}, "no cut beyond the end, so some were left out"


@pytest.mark.parametrize("first", range(9, 21))
def test_two_power_cuts_end_in_the_same_state(device: Board, first: int) -> None:
    """Before each action of the reset, and again before each action of what follows."""
    for second in range(LONGEST):
        world = World(device, [first, second])
        device.start({}, FACTORY)
        world.live()
        check_the_end(device, f"power for {first} and {second} actions")
        if world.cuts:
            break
    else:
        pytest.fail("no cut beyond the end, so some were left out")
