"""Runtime of a device: executes the firmware's actions one after the other, on a flash and a real radio."""

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Callable

from device_sim import facts
from device_sim.actions import (
    SERIAL,
    Action,
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
    Upload,
    WifiGiven,
    WriteFlash,
)
from device_sim.app import GatewayApi
from device_sim.backoff import Backoff
from device_sim.binding import Binding
from device_sim.device import Device, State
from device_sim.errors import PowerCutError, ProvisioningError, RadioError
from device_sim.fact_log import FactLog
from device_sim.facts import Fact, OnFact
from device_sim.flash import Flash, manufacture, power_on
from device_sim.links import Arrival, Link
from device_sim.options import CELLULAR_APN, Options, RadioKind
from device_sim.recordings import RECORDINGS
from device_sim.relay import refresh_token


class SimulatedDevice:
    """One device with its companion app, against a real gateway.

    `radio` is how it was built: `wifi` gets a network when it is provisioned, `cellular` has a modem, and the app
    relays the heartbeats of `ble` until `give_wifi`. `interval` is the seconds between heartbeats. `rng` decides
    everything random. `on_fact` is called with each fact, in order. A flash that has a serial number already keeps it,
    and `serial` must be the same.
    """

    def __init__(
        self,
        *,
        serial: str,
        flash: Flash,
        api: GatewayApi,
        radio: RadioKind = "wifi",
        interval: float = 60.0,
        rng: random.Random | None = None,
        on_fact: OnFact | None = None,
        options: Options | None = None,
    ) -> None:
        self.serial = serial
        self.radio = radio
        self.flash = flash
        self._api = api
        self._interval = interval
        self._options = options or Options()
        self._rng = rng or random.Random()  # noqa: S311  # a simulation; every secret comes from the gateway
        self._backoff = Backoff(
            random.Random(self._rng.random()),  # noqa: S311  # the same
            first=self._options.backoff_first,
            longest=self._options.backoff_longest,
            stable=self._options.backoff_stable,
            refused_longest=self._options.backoff_refused,
        )
        self._log = FactLog(serial, self._options.clock, on_fact)
        self._device = Device(self._rng, self._options.recordings)
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self._input_lock = asyncio.Lock()
        self._link: Link | None = None
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def state(self) -> State:
        """Return the state in the device's life cycle."""
        return self._device.state

    @property
    def facts(self) -> list[Fact]:
        """Return the facts, oldest first; the newest 10,000 are kept."""
        return self._log.facts

    @property
    def counts(self) -> Counter[str]:
        """Return how often each fact happened since the start, by name."""
        return self._log.counts

    @property
    def binding(self) -> Binding | None:
        """Return the binding in the flash, or None when unpaired."""
        return Binding.from_flash(self.flash.wiped_area)

    @property
    def recordings(self) -> dict[str, int]:
        """Return the recordings in the flash: by its id, the binding generation in which each was made."""
        return dict(self.flash.kept_area.get(RECORDINGS) or {})

    async def provision(self, *, end_user_id: str, supersede_reset: bool = False) -> Binding:
        """Register and bind over HTTP as the companion app does, then write the binding to the device over BLE.

        Raises:
            ProvisioningError: the device is paired; it has to be reset first.
            SimulatorError: an error of the gateway or of the connection to it (see `GatewayApi`).
        """
        if self.binding is not None:
            raise ProvisioningError(f"{self.serial} is paired already; reset it before it is bound anew")
        self._manufacture()
        device_id = await self._register()
        binding = await self._api.bind(device_id, end_user_id, supersede_reset=supersede_reset)
        self._log.add("bound", device_id=device_id, end_user_id=end_user_id, generation=binding.generation)
        networks = (self._options.wifi_network,) if self.radio == "wifi" else ()
        if self._tasks is None:
            await self._handle(power_on(self.flash))
        await self._handle(Provisioned(binding, networks))
        return binding

    async def run(self) -> None:
        """Run until cancelled: power on, connect, send heartbeats, execute commands.

        Raises:
            ProvisioningError: the flash belongs to another serial number.
        """
        self._manufacture()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._schedule_heartbeats(), name=f"heartbeats of {self.serial}")
                await self._handle(power_on(self.flash))
                while True:
                    arrival = await self._arrivals.get()
                    if arrival.link is None or arrival.link is self._link:
                        await self._handle(arrival.event)
        except Exception as error:
            self._log.fail(error)
            raise
        finally:
            self._tasks = self._link = None

    def give_wifi(self, ssid: str, psk: str) -> None:
        """Add a WiFi network over BLE as the companion app does. The device then connects over MQTT."""
        self._arrivals.put_nowait(Arrival(None, WifiGiven(ssid, psk)))

    async def cut_power(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Cut the power at once, call ``meanwhile``, and switch the power on again."""
        async with self._input_lock:
            await self._lose_power("now")
            meanwhile()
            await self._process(power_on(self.flash))

    async def wait_for(self, state: State | str) -> None:
        """Wait until the device is in a state; return at once if it is already."""
        await self._log.until(lambda: self.state == state)

    async def wait_for_fact(self, name: str, *, count: int = 1) -> Fact:
        """Wait until a fact happened `count` times since the start, and return the newest of that name."""
        await self._log.until(lambda: self.counts[name] >= count)
        return next(each for each in reversed(self.facts) if each.name == name)

    # --- the companion app --------------------------------------------------------------------------------------------

    async def _register(self) -> str:
        options = self._options
        device = await self._api.register(
            self.serial, model=options.model, name=options.name, firmware_version=options.firmware_version
        )
        self._log.add("registered", device_id=device["id"])
        return str(device["id"])

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _manufacture(self) -> None:
        apn = CELLULAR_APN if self.radio == "cellular" else None
        manufacture(self.flash, serial=self.serial, firmware_version=self._options.firmware_version, cellular_apn=apn)
        if self.flash.kept_area[SERIAL] != self.serial:
            raise ProvisioningError(f"this flash belongs to {self.flash.kept_area[SERIAL]}, not to {self.serial}")

    async def _schedule_heartbeats(self) -> None:
        """Report when a heartbeat is due. A jitter of one tenth spreads the heartbeats of a fleet."""
        while True:
            await asyncio.sleep(self._interval * self._rng.uniform(0.9, 1.1))
            if self._arrivals.empty():
                self._arrivals.put_nowait(Arrival(None, HeartbeatDue()))

    async def _handle(self, event: Input) -> None:
        async with self._input_lock:
            await self._process(event)

    async def _process(self, event: Input) -> None:
        """Pass one input to the firmware, execute its actions, and pass on the inputs that result from them."""
        pending = deque([event])
        while pending:
            try:
                pending.extend(await self._process_one(pending.popleft()))
            except PowerCutError as cut:
                await self._lose_power(str(cut))
                pending = deque([power_on(self.flash)])

    async def _process_one(self, event: Input) -> list[Input]:
        before = self.state
        actions = self._device.handle(event, self._options.clock())
        follow_ups: list[Input] = []
        if self.state is not before:
            self._log.add("state", before=str(before), after=str(self.state))
        for action in actions:
            self._options.faults.before(action)
            follow_up = await self._execute(action)
            if follow_up is not None:
                follow_ups.append(follow_up)
        return follow_ups

    async def _execute(self, action: Action) -> Input | None:
        match action:
            case RecordFact():
                self._log.add(action.name, **action.details)
            case Publish():
                return await self._publish(action)
            case WriteFlash():
                self.flash.write(action.area, action.name, action.value)
                self._record_flash_change(action)
            case EraseFlash():
                self.flash.erase(action.area, action.name)
                self._record_flash_change(action)
            case OpenLink():
                await self._open(action)
            case RefreshToken():
                return await refresh_token(self._api, action)
            case Upload():
                self._log.add("uploaded", **facts.describe_upload(action))
            case Reboot():
                return await self._reboot()
        return None

    def _record_flash_change(self, action: WriteFlash | EraseFlash) -> None:
        name, details = facts.describe_flash_change(action)
        self._log.add(name, **details)

    async def _publish(self, message: Publish) -> Published | PublishFailed:
        try:
            await self._send(message)
        except RadioError as error:
            self._log.add("not_sent", kind=message.kind, reason=str(error))
            return PublishFailed(message, str(error))
        self._record_sent(message)
        return Published(message)

    async def _send(self, message: Publish) -> None:
        if self._link is None:
            raise RadioError("no link is open")
        await self._link.publish(message)

    def _record_sent(self, message: Publish) -> None:
        body = json.loads(message.payload)
        if message.kind == "ack":
            self._log.add("acknowledged", type=message.command_type, **body)
        else:
            self._log.add(message.kind, **body)

    # --- power and link -----------------------------------------------------------------------------------------------

    async def _open(self, request: OpenLink) -> None:
        await self._close()
        if self._tasks is None:
            return
        self._backoff.begin_link()
        self._link = Link(request, self._arrivals.put_nowait, self._api, self._backoff, self._options)
        self._link.open(self._tasks, self.serial)

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _reboot(self) -> Input:
        paired = self.binding is not None
        self._log.add("rebooting", paired=paired)
        await self._close()
        return power_on(self.flash)

    async def _lose_power(self, step: str) -> None:
        self._log.add("power_cut", step=step)
        link, self._link = self._link, None
        self._device = Device(self._rng, self._options.recordings)
        if link is not None:
            await link.lose_power()
