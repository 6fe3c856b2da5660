"""A bench for the firmware alone: a flash in memory, a notebook for what it publishes, a hand on the power switch."""

from collections import deque
from dataclasses import dataclass, field

from device_sim.actions import (
    Action,
    EraseFlash,
    Input,
    LinkUp,
    OpenLink,
    Provisioned,
    Publish,
    Published,
    Reboot,
    RecordFact,
    Upload,
    WriteFlash,
)
from device_sim.binding import Binding
from device_sim.device import Device, State
from device_sim.facts import step
from device_sim.flash import MemoryFlash, manufacture, power_on
from tests.device_sim.support import NOW, Signer, make_binding, seeded

HOME = {"ssid": "home", "psk": "secret"}


class BenchPowerCutError(Exception):
    """The bench's switch was turned."""


@dataclass
class FirmwareBench:
    """Carries out actions as a runtime does; `power_for` actions from now, then the power goes once."""

    flash: MemoryFlash = field(default_factory=MemoryFlash)
    device: Device = field(default_factory=lambda: Device(seeded()))
    sent: list[Publish] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    power_for: int | None = None
    confirms: bool = True
    now: int = NOW

    def feed(self, event: Input) -> None:
        """Give one input and carry out everything that comes of it; after a power cut the device starts again."""
        waiting = deque([event])
        while waiting:
            try:
                waiting.extend(self._process(waiting.popleft()))
            except BenchPowerCutError:
                self.device = Device(seeded())
                waiting = deque([power_on(self.flash)])

    def _process(self, event: Input) -> list[Input]:
        answers: list[Input] = []
        for action in self.device.handle(event, self.now):
            self._use_power()
            answers.extend(self._execute(action))
        return answers

    def _use_power(self) -> None:
        if self.power_for is None:
            return
        self.power_for -= 1
        if self.power_for < 0:
            self.power_for = None
            raise BenchPowerCutError

    def _execute(self, action: Action) -> list[Input]:
        self.steps.append(step(action))
        match action:
            case WriteFlash():
                self.flash.write(action.area, action.name, action.value)
            case EraseFlash():
                self.flash.erase(action.area, action.name)
            case RecordFact():
                self.facts.append(action.name)
            case OpenLink():
                self.opened.append(action.connection)
            case Publish():
                self.sent.append(action)
                return [Published(action)] if self.confirms else []
            case Upload():
                self.uploads.append(action)
            case Reboot():
                return [power_on(self.flash)]
        return []

    def acks(self) -> list[tuple[str | None, str | None]]:
        """Command id and status of every acknowledgement, in order."""
        return [(each.command_id, each.status) for each in self.sent if each.kind == "ack"]

    def payloads(self, kind: str) -> list[bytes]:
        """What was published of one kind, in order."""
        return [each.payload for each in self.sent if each.kind == kind]


def online_bench(
    signer: Signer,
    *,
    binding: Binding | None = None,
    connection: str = "wifi",
) -> FirmwareBench:
    """A bench whose device is provisioned and online; what happened before is forgotten."""
    bench = FirmwareBench()
    apn = "iot.example" if connection == "4g" else None
    manufacture(bench.flash, serial="SN1", firmware_version="1.4.2", cellular_apn=apn)
    bench.feed(power_on(bench.flash))
    bench.feed(Provisioned(binding or make_binding(signer), (HOME,) if connection == "wifi" else ()))
    link_up(bench)
    assert bench.device.state is State.ONLINE
    bench.sent.clear()
    bench.facts.clear()
    bench.steps.clear()
    return bench


def link_up(bench: FirmwareBench) -> None:
    """Let the link come up that the device asked for last."""
    match bench.opened[-1]:
        case "wifi":
            bench.feed(LinkUp("wifi", "mqtt"))
        case "4g":
            bench.feed(LinkUp("4g", "mqtt"))
        case _:
            bench.feed(LinkUp("ble", "ble"))
