"""The hardware of one device: its flash, its power and its radio; the firmware is ``device_sim.device``."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, Literal, Protocol

from device_sim.actions import (
    Action,
    Area,
    CommandReceived,
    EraseFlash,
    HeartbeatDue,
    Input,
    OpenLink,
    Provisioned,
    Publish,
    Published,
    PublishFailed,
    Reboot,
    RecordFact,
    RefreshToken,
    TokenRefreshed,
    WriteFlash,
)
from device_sim.binding import PAIRING, TOKEN, WIFI, WIPED_BY_A_RESET, Binding
from device_sim.device import IN_PROGRESS, JOURNAL, RESET, Device, State
from device_sim.errors import PowerCutError, RadioError
from device_sim.facts import step
from device_sim.flash import MemoryFlash, manufacture, power_on
from device_sim.relay import BleRelay, HttpRadio, refresh_token
from tests.simulation.broker import Broker
from tests.simulation.device_radio import VirtualRadio
from tests.simulation.network import Nature
from tests.simulation.virtual_api import VirtualApi

Kind = Literal["mqtt", "http", "ble"]
INTERVAL_SECONDS = 4.0
_BOOT_SECONDS = 0.3
_NETWORK = ({"ssid": "home", "psk": "correct horse"},)


class Observer(Protocol):
    """Recorder of what devices really do."""

    def says(self, device: DeviceHost, what: Publish) -> None:
        """The device sends this."""

    def begins(self, device: DeviceHost, command_id: str) -> None:
        """The device writes "reset in progress" and is about to be wiped."""

    def gets_token(self, device: DeviceHost, token: str) -> None:
        """The device was answered another token of its binding."""

    def has_done(self, device: DeviceHost, command_id: str) -> None:
        """The device has the effect of a command behind it and writes that down."""


class DeviceHost:
    """One device. ``cuts`` names steps (``device_sim.facts.step``) before which the power goes, once each."""

    def __init__(
        self,
        serial: str,
        kind: Kind,
        nature: Nature,
        *,
        broker: Broker,
        api: VirtualApi,
        observer: Observer,
    ) -> None:
        self.serial = serial
        self.kind = kind
        self.id = ""
        self.flash = MemoryFlash()
        manufacture(self.flash, serial=serial, firmware_version="1.4.2", cellular_apn="iot" if kind == "http" else None)
        self.machine = Device(nature.rng)
        self.cuts: list[str] = []
        self.cut_after: int | None = None
        self.off_seconds = 1.0
        self.wiped_for: str | None = None
        self.obeyed: dict[str, dict[str, Any]] = {}
        """The params of each command that it took on, as they came."""
        self.radio: VirtualRadio | HttpRadio | BleRelay | None = None
        self._broker, self._api, self._observer = broker, api, observer
        self._rng, self._clock, self._latency, self._tell = nature.rng, nature.clock, nature.latency, nature.tell
        self._inputs: deque[tuple[object, Input]] = deque()
        self._arrived = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._link: asyncio.Task[None] | None = None

    @property
    def binding(self) -> Binding | None:
        """What lies in the flash of the last bind."""
        return Binding.from_flash(self.flash.wiped_area)

    @property
    def paired(self) -> bool:
        """Whether it is to be reset before it can be bound again."""
        return self.machine.state is not State.UNPROVISIONED

    # --- power --------------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Start the firmware, unless it runs."""
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._live())

    def switch_off(self) -> None:
        """Cut the power."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
        self._drop_link()
        self.machine = Device(self._rng)
        self._inputs.clear()

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._life is not None

    async def _live(self) -> None:
        beating = asyncio.get_running_loop().create_task(self._beat())
        try:
            while True:
                try:
                    await self._run()
                except PowerCutError as cut:
                    self._tell(self.serial, f"loses power before '{cut}'")
                self._drop_link()
                self.machine = Device(self._rng)
                self._inputs.clear()
                await asyncio.sleep(self.off_seconds)
        finally:
            beating.cancel()

    async def _run(self) -> None:
        await self._process(power_on(self.flash))
        while True:
            while not self._inputs:
                self._arrived.clear()
                await self._arrived.wait()
            link, event = self._inputs.popleft()
            if link is None or link is self._link:
                await self._process(event)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS * self._rng.uniform(0.9, 1.1))
            if not self._inputs:
                self.hear(HeartbeatDue())

    def hear(self, event: Input, link: object = None) -> None:
        """An input for the firmware."""
        self._inputs.append((link, event))
        self._arrived.set()

    # --- the firmware's actions ---------------------------------------------------------------------------------------

    async def _process(self, event: Input) -> None:
        waiting = deque([event])
        while waiting:
            event = waiting.popleft()
            for action in self.machine.handle(event, self._clock()):
                self._note_params(event, action)
                self._may_lose_power(action)
                answer = await self._carry_out(action)
                if answer is not None:
                    waiting.append(answer)

    def _note_params(self, event: Input, action: Action) -> None:
        if isinstance(event, CommandReceived) and isinstance(action, Publish) and action.status == "delivered":
            self.obeyed[str(action.command_id)] = json.loads(event.payload)["params"]

    def _may_lose_power(self, action: Action) -> None:
        name = step(action)
        if name in self.cuts:
            self.cuts.remove(name)
            raise PowerCutError(name)
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after <= 0:
                self.cut_after = None
                raise PowerCutError(name)

    async def _carry_out(self, action: Action) -> Input | None:
        match action:
            case RecordFact():
                self._tell(self.serial, action.name, **action.details)
            case Publish():
                return await self._publish(action)
            case WriteFlash():
                self._watch(action)
                self.flash.write(action.area, action.name, action.value)
            case EraseFlash():
                self.flash.erase(action.area, action.name)
                if action.name == TOKEN:
                    self._tell(self.serial, "wipes its token")
            case OpenLink():
                self._open(action)
            case RefreshToken():
                return await self._refresh(action)
            case Reboot():
                self._drop_link()
                await asyncio.sleep(_BOOT_SECONDS)
                return power_on(self.flash)
        return None

    def _watch(self, action: WriteFlash) -> None:
        if action.name == IN_PROGRESS:
            self.wiped_for = action.value["command_id"]
            self._observer.begins(self, action.value["command_id"])
        elif action.name == JOURNAL and action.value[-1]["status"] == "executed" and action.value[-1]["type"] != RESET:
            self._observer.has_done(self, action.value[-1]["command_id"])

    async def _publish(self, what: Publish) -> Published | PublishFailed:
        if self.radio is None:
            return PublishFailed(what, "no link is open")
        self._observer.says(self, what)
        try:
            await self.radio.publish(what)
        except RadioError as error:
            return PublishFailed(what, str(error))
        return Published(what)

    # --- radio and hands ----------------------------------------------------------------------------------------------

    def _open(self, wanted: OpenLink) -> None:
        self._drop_link()
        link: asyncio.Task[None] | None = None

        def deliver(event: Input) -> None:
            self.hear(event, link)

        if self.kind == "mqtt":
            self.radio = VirtualRadio(wanted.binding, deliver, self._broker, self._rng, self._latency)
        elif self.kind == "http":
            self.radio = HttpRadio(wanted.binding, "4g", deliver, self._api)
        else:
            self.radio = BleRelay(wanted.binding, deliver, self._api)
        link = self._link = asyncio.get_running_loop().create_task(self.radio.run())

    async def _refresh(self, wanted: RefreshToken) -> Input:
        answer = await refresh_token(self._api, wanted)
        if isinstance(answer, TokenRefreshed):
            self._observer.gets_token(self, answer.device_token)
        return answer

    def _drop_link(self) -> None:
        link, self._link, self.radio = self._link, None, None
        if link is not None:
            link.cancel()

    def provision(self, binding: Binding) -> None:
        """The companion app writes a binding over BLE."""
        self.hear(Provisioned(binding, _NETWORK if self.kind == "mqtt" else ()))

    def reset_by_hand(self) -> None:
        """Reset by the button: wiped without a message, and nothing left to send."""
        self.switch_off()
        for name in (*WIPED_BY_A_RESET, PAIRING, WIFI):
            self.flash.erase(Area.WIPED, name)
        self.switch_on()

    def replace_token(self, token: str) -> None:
        """The device got a new token of the same binding, and goes by it from its next start on."""
        self.flash.write(Area.WIPED, TOKEN, token)


def said_in(what: Publish) -> tuple[str, str] | None:
    """Command and status that a message tells of."""
    body = json.loads(what.payload)
    told = body if what.kind == "ack" else body.get("last_command")
    return (told["command_id"], told["status"]) if told else None
