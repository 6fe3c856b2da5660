"""The simulated device behind the interface of `tests.firmware.bench.Board`, so that both get the same events."""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from device_sim.actions import (
    Action,
    Area,
    CommandReceived,
    EraseFlash,
    HeartbeatDue,
    Input,
    LinkDown,
    LinkRefused,
    LinkUp,
    OpenLink,
    Provisioned,
    Publish,
    Published,
    PublishFailed,
    Reboot,
    RecordFact,
    RefreshFailed,
    RefreshToken,
    RefusalReceived,
    TokenRefreshed,
    Upload,
    WriteFlash,
)
from device_sim.binding import Binding, Endpoint
from device_sim.device import Device
from device_sim.flash import MemoryFlash, power_on
from tests.firmware.bench import Action as Plain

HEALTH = {"battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm", "device_state", "flags"}
"""Fields of a heartbeat that are the product's affair: the two devices measure different things."""


def _new_device() -> Device:
    return Device(random.Random(1))  # noqa: S311  # a test has to be repeatable


class Twin:
    """A simulated device with a flash in memory."""

    def __init__(self) -> None:
        self._flash = MemoryFlash()
        self._device = _new_device()
        self._messages: list[Publish] = []

    @property
    def state(self) -> str:
        """The state of the device, by the name that both have for it."""
        return str(self._device.state)

    @property
    def sent(self) -> list[Plain]:
        """Every message that was published, in order."""
        return [plain(each) for each in self._messages]

    def start(self, wiped: Mapping[str, Any], kept: Mapping[str, Any]) -> list[Plain]:
        """Power a new device on whose flash holds these values."""
        self.__init__()  # type: ignore[misc]  # a new flash and a new device
        for area, values in ((Area.WIPED, wiped), (Area.KEPT, kept)):
            for name, value in values.items():
                self._flash.write(area, name, value)
        return self._run(power_on(self._flash), 0, None)

    def give(self, event: Any, now: int, cut: int | None = None) -> list[Plain]:
        """Give one event; with `cut`, the power goes before the action of this number and comes back at once."""
        return self._run(self._read(event), now, cut)

    def flash(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the values of both areas."""
        return dict(self._flash.wiped_area), dict(self._flash.kept_area)

    def _run(self, event: Input, now: int, cut: int | None) -> list[Plain]:
        done: list[Plain] = []
        for number, action in enumerate(self._device.handle(event, now)):
            if number == cut:
                self._device = _new_device()
                return done + self._run(power_on(self._flash), 0, None)
            done.append(plain(action))
            if isinstance(action, Reboot):
                done += self._run(power_on(self._flash), now, None)
            else:
                self._carry_out(action)
        return done

    def _carry_out(self, action: Action) -> None:
        match action:
            case WriteFlash():
                self._flash.write(action.area, action.name, action.value)
            case EraseFlash():
                self._flash.erase(action.area, action.name)
            case Publish():
                self._messages.append(action)

    def _read(self, event: Any) -> Input:  # noqa: PLR0911  # a table: one line per event
        kind, *details = event
        match kind:
            case "command":
                return CommandReceived(details[0], details[1].encode())
            case "errors":
                return RefusalReceived(details[0].encode())
            case "provisioned":
                return Provisioned(Binding.from_answer(details[0]), tuple(details[1]))
            case "published":
                return Published(self._messages[details[0]])
            case "publish_failed":
                return PublishFailed(self._messages[details[0]], details[1])
            case "token_refreshed":
                return TokenRefreshed(details[0], Endpoint(**details[1]))
            case _:
                made: Input = PLAIN_EVENTS[kind](*details)
                return made


PLAIN_EVENTS: Mapping[str, Any] = {
    "heartbeat_due": HeartbeatDue,
    "link_up": LinkUp,
    "link_down": LinkDown,
    "link_refused": LinkRefused,
    "refresh_failed": RefreshFailed,
}


def plain(action: Action) -> Plain:  # noqa: PLR0911  # a table: one line per action
    """Return an action as the firmware writes it."""
    match action:
        case RecordFact():
            return ["tell", action.name, dict(action.details)]
        case Publish():
            text = action.payload.decode()
            return ["publish", action.kind, text, action.command_id, action.command_type, action.status]
        case WriteFlash():
            return ["write", str(action.area), action.name, action.value]
        case EraseFlash():
            return ["erase", str(action.area), action.name]
        case OpenLink():
            return ["open_link", action.connection, _binding(action.binding)]
        case RefreshToken():
            return ["refresh_token", _binding(action.binding)]
        case Upload():
            return ["upload", action.recording_id, action.made_in, _binding(action.binding)]
        case Reboot():
            return ["reboot"]


def _binding(binding: Binding) -> dict[str, Any]:
    return {**binding.pairing(), "device_token": binding.device_token, "mqtt": asdict(binding.mqtt)}


def comparable(actions: list[Plain]) -> list[Plain]:
    """Return the actions without what may differ: the form of JSON, health, the words of a parser, None in a flash."""
    return [_comparable(json.loads(json.dumps(action))) for action in actions]


def _comparable(action: Plain) -> Plain:
    if action[0] == "publish":
        fields = json.loads(action[2])
        action[2] = {name: value for name, value in fields.items() if name not in HEALTH}
    if action[:2] == ["tell", "command_ignored"]:
        del action[2]["reason"]
    return action
