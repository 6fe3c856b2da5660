"""The hardware of one device: its flash, its power and its radio; the firmware is ``device_sim.device``."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
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
    Upload,
    WriteFlash,
)
from device_sim.binding import PAIRING, TOKEN, WIFI, WIPED_BY_A_RESET, Binding
from device_sim.device import JOURNAL, Device, State
from device_sim.errors import PowerCutError, RadioError
from device_sim.facts import step
from device_sim.flash import MemoryFlash, manufacture, power_on
from device_sim.recordings import RECORDINGS
from device_sim.relay import BleRelay, HttpRadio, refresh_token
from device_sim.reset import IN_PROGRESS, RESET
from tests.simulation.broker import Broker
from tests.simulation.device_radio import VirtualRadio
from tests.simulation.network import Environment
from tests.simulation.virtual_api import VirtualApi

Kind = Literal["mqtt", "http", "ble"]
INTERVAL_SECONDS = 4.0
RECORDINGS_AT_BIND = 2
_BOOT_SECONDS = 0.3
_NETWORK = ({"ssid": "home", "psk": "correct horse"},)


class DeviceObserver(Protocol):
    """Recorder of what devices really do."""

    def on_device_publish(self, device: DeviceHost, message: Publish) -> None:
        """The device sends this."""

    def on_reset_begun(self, device: DeviceHost, command_id: str) -> None:
        """The device writes "reset in progress" and is about to be wiped."""

    def on_token_refreshed(self, device: DeviceHost, answer: TokenRefreshed, began: float) -> None:
        """The device was answered another token of its binding, for which it first asked at this virtual second."""

    def on_recorded(self, device: DeviceHost, stored: dict[str, int]) -> None:
        """The device writes down which recordings it has."""

    def on_upload(self, device: DeviceHost, upload: Upload) -> None:
        """The device uploads a recording."""

    def on_command_done(self, device: DeviceHost, command_id: str) -> None:
        """The device has the effect of a command behind it and writes that down."""


class DeviceHost:
    """One device. ``power_cuts`` names steps (``device_sim.facts.step``) before which the power goes, once each."""

    def __init__(
        self,
        serial: str,
        kind: Kind,
        environment: Environment,
        *,
        broker: Callable[[Binding], Broker],
        api: VirtualApi,
        observer: DeviceObserver,
    ) -> None:
        self.serial = serial
        self.kind = kind
        self.id = ""
        self.flash = MemoryFlash()
        manufacture(self.flash, serial=serial, firmware_version="1.4.2", cellular_apn="iot" if kind == "http" else None)
        self.firmware = Device(environment.rng, RECORDINGS_AT_BIND)
        self.power_cuts: list[str] = []
        self.cut_after: int | None = None
        self.off_seconds = 1.0
        self.wiped_for_command: str | None = None
        self.accepted_params: dict[str, dict[str, Any]] = {}
        """The params of each command that it took on, as they came."""
        self.radio: VirtualRadio | HttpRadio | BleRelay | None = None
        self._broker, self._api, self._observer = broker, api, observer
        self._rng, self._clock, self._latency, self._log = (
            environment.rng,
            environment.clock,
            environment.latency,
            environment.log,
        )
        self._asked_at: dict[str, float] = {}
        self._inputs: deque[tuple[object, Input]] = deque()
        self._arrived = asyncio.Event()
        self._firmware_task: asyncio.Task[None] | None = None
        self._link: asyncio.Task[None] | None = None

    @property
    def binding(self) -> Binding | None:
        """What lies in the flash of the last bind."""
        return Binding.from_flash(self.flash.wiped_area)

    @property
    def is_paired(self) -> bool:
        """Whether it is to be reset before it can be bound again."""
        return self.firmware.state is not State.UNPROVISIONED

    # --- power --------------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """Start the firmware, unless it runs."""
        if self._firmware_task is None:
            self._firmware_task = asyncio.get_running_loop().create_task(self._run_powered())

    def switch_off(self) -> None:
        """Cut the power."""
        task, self._firmware_task = self._firmware_task, None
        if task is not None:
            task.cancel()
        self._drop_link()
        self.firmware = Device(self._rng, RECORDINGS_AT_BIND)
        self._inputs.clear()

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._firmware_task is not None

    async def _run_powered(self) -> None:
        heartbeat_task = asyncio.get_running_loop().create_task(self._schedule_heartbeats())
        try:
            while True:
                try:
                    await self._run()
                except PowerCutError as cut:
                    self._log(self.serial, f"loses power before '{cut}'")
                self._drop_link()
                self.firmware = Device(self._rng, RECORDINGS_AT_BIND)
                self._inputs.clear()
                await asyncio.sleep(self.off_seconds)
        finally:
            heartbeat_task.cancel()

    async def _run(self) -> None:
        await self._process(power_on(self.flash))
        while True:
            while not self._inputs:
                self._arrived.clear()
                await self._arrived.wait()
            link, event = self._inputs.popleft()
            if link is None or link is self._link:
                await self._process(event)

    async def _schedule_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS * self._rng.uniform(0.9, 1.1))
            if not self._inputs:
                self.enqueue(HeartbeatDue())

    def enqueue(self, event: Input, link: object = None) -> None:
        """An input for the firmware."""
        self._inputs.append((link, event))
        self._arrived.set()

    # --- the firmware's actions ---------------------------------------------------------------------------------------

    async def _process(self, event: Input) -> None:
        pending = deque([event])
        while pending:
            event = pending.popleft()
            for action in self.firmware.handle(event, self._clock()):
                self._record_params(event, action)
                self._check_power(action)
                follow_up = await self._execute(action)
                if follow_up is not None:
                    pending.append(follow_up)

    def _record_params(self, event: Input, action: Action) -> None:
        if isinstance(event, CommandReceived) and isinstance(action, Publish) and action.status == "delivered":
            self.accepted_params[str(action.command_id)] = json.loads(event.payload)["params"]

    def _check_power(self, action: Action) -> None:
        name = step(action)
        if name in self.power_cuts:
            self.power_cuts.remove(name)
            raise PowerCutError(name)
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after <= 0:
                self.cut_after = None
                raise PowerCutError(name)

    async def _execute(self, action: Action) -> Input | None:
        match action:
            case RecordFact():
                self._log(self.serial, action.name, **action.details)
            case Publish():
                return await self._publish(action)
            case WriteFlash():
                self._report_write(action)
                self.flash.write(action.area, action.name, action.value)
            case EraseFlash():
                self.flash.erase(action.area, action.name)
                if action.name == TOKEN:
                    self._log(self.serial, "wipes its token")
            case OpenLink():
                self._open(action)
            case RefreshToken():
                return await self._refresh(action)
            case Upload():
                self._observer.on_upload(self, action)
            case Reboot():
                self._drop_link()
                await asyncio.sleep(_BOOT_SECONDS)
                return power_on(self.flash)
        return None

    def _report_write(self, action: WriteFlash) -> None:
        if action.name == RECORDINGS:
            self._observer.on_recorded(self, action.value)
        elif action.name == IN_PROGRESS:
            self.wiped_for_command = action.value["command_id"]
            self._observer.on_reset_begun(self, action.value["command_id"])
        elif action.name == JOURNAL and action.value[-1]["status"] == "executed" and action.value[-1]["type"] != RESET:
            self._observer.on_command_done(self, action.value[-1]["command_id"])

    async def _publish(self, message: Publish) -> Published | PublishFailed:
        if self.radio is None:
            return PublishFailed(message, "no link is open")
        self._observer.on_device_publish(self, message)
        try:
            await self.radio.publish(message)
        except RadioError as error:
            return PublishFailed(message, str(error))
        return Published(message)

    # --- radio and hands ----------------------------------------------------------------------------------------------

    def _open(self, request: OpenLink) -> None:
        self._drop_link()
        link: asyncio.Task[None] | None = None

        def deliver(event: Input) -> None:
            self.enqueue(event, link)

        if self.kind == "mqtt":
            self.radio = VirtualRadio(request.binding, deliver, self._broker, self._rng, self._latency)
        elif self.kind == "http":
            self.radio = HttpRadio(request.binding, "4g", deliver, self._api)
        else:
            self.radio = BleRelay(request.binding, deliver, self._api)
        link = self._link = asyncio.get_running_loop().create_task(self.radio.run())

    async def _refresh(self, request: RefreshToken) -> Input:
        # A repetition has the same Idempotency-Key, and gets the first answer.
        began = self._asked_at.setdefault(request.binding.device_token, asyncio.get_running_loop().time())
        follow_up = await refresh_token(self._api, request)
        if isinstance(follow_up, TokenRefreshed):
            self._observer.on_token_refreshed(self, follow_up, began)
        return follow_up

    def _drop_link(self) -> None:
        link, self._link, self.radio = self._link, None, None
        if link is not None:
            link.cancel()

    def provision(self, binding: Binding) -> None:
        """The companion app writes a binding over BLE."""
        self.enqueue(Provisioned(binding, _NETWORK if self.kind == "mqtt" else ()))

    def reset_by_hand(self) -> None:
        """Reset by the button: wiped without a message, and nothing left to send."""
        self.switch_off()
        for name in (*WIPED_BY_A_RESET, PAIRING, WIFI):
            self.flash.erase(Area.WIPED, name)
        self.switch_on()

    def replace_token(self, token: str, mqtt: Mapping[str, Any]) -> None:
        """The device got a new token of the same binding and its broker, and goes by both from its next start on."""
        self.flash.write(Area.WIPED, TOKEN, token)
        binding = self.binding
        if binding is not None and binding.mqtt.moved(mqtt) != binding.mqtt:
            self.flash.write(Area.WIPED, PAIRING, replace(binding, mqtt=binding.mqtt.moved(mqtt)).pairing())


def reported_status(message: Publish) -> tuple[str, str] | None:
    """Return command and status that a message reports, or None."""
    body = json.loads(message.payload)
    status = body if message.kind == "ack" else body.get("last_command")
    return (status["command_id"], status["status"]) if status else None
