"""Fleet of devices from one seed, and a summary of what they did."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_sim.app import GatewayApi
from device_sim.device import State
from device_sim.errors import SimulatorError
from device_sim.facts import Fact, OnFact
from device_sim.flash import DirectoryFlash, Flash, MemoryFlash
from device_sim.options import Options, RadioKind
from device_sim.runtime import SimulatedDevice

PROVISIONED_AT_ONCE = 8
DEFAULT_MIX: Mapping[RadioKind, float] = {"wifi": 6, "cellular": 3, "ble": 1}


@dataclass(frozen=True)
class RadioSummary:
    """Summary of the devices of one radio."""

    radio: RadioKind
    devices: int
    online: int
    unpaired: int
    heartbeats: int
    commands: int
    executed: int
    refused: int
    resets: int
    link_losses: int


class Fleet:
    """`count` devices whose serials, radios, batteries and pauses all follow from `seed`.

    `radio_mix` gives the weight of each radio. With `flash_root` each device has a directory below it, and a fleet that
    was provisioned before continues. Without it nothing survives the process.
    """

    def __init__(
        self,
        *,
        api: GatewayApi,
        count: int,
        seed: int,
        radio_mix: Mapping[RadioKind, float] = DEFAULT_MIX,
        interval: float = 60.0,
        flash_root: Path | None = None,
        on_fact: OnFact | None = None,
        options: Options | None = None,
    ) -> None:
        self.seed = seed
        self.failures: dict[str, SimulatorError] = {}
        self.ready = 0
        self._acknowledged: Counter[tuple[str, str]] = Counter()
        self._flash_root = flash_root
        self._on_fact = on_fact
        rng = random.Random(seed)  # noqa: S311  # a simulation has to be repeatable
        radios = rng.choices(list(radio_mix), weights=list(radio_mix.values()), k=count)
        self.devices = [
            SimulatedDevice(
                serial=serial,
                radio=radio,
                flash=self._make_flash(serial),
                api=api,
                interval=interval,
                rng=random.Random(f"{seed}:{serial}"),  # noqa: S311  # the same
                on_fact=self._count_fact,
                options=options,
            )
            for serial, radio in zip(self._serials(count), radios, strict=True)
        ]

    @property
    def unprovisioned(self) -> int:
        """Return how many devices neither hold a binding nor failed, because provisioning ended before their turn."""
        return len(self.devices) - self.ready - len(self.failures)

    async def provision(self, *, on_done: Callable[[], None] | None = None) -> None:
        """Bind each device that is unbound, eight at a time. `failures` collects the errors by serial number.

        `on_done` is called after each device, bound or failed; `ready` and `failures` hold the results.
        """
        free = asyncio.Semaphore(PROVISIONED_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for number, device in enumerate(self.devices):
                tasks.create_task(self._provision(device, f"eu_sim{self.seed}x{number}", free, on_done))

    async def run(self) -> None:
        """Run every provisioned device until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for device in self.devices:
                if device.serial not in self.failures:
                    tasks.create_task(device.run(), name=device.serial)

    def summary(self) -> list[RadioSummary]:
        """Return one row per radio that occurs."""
        radios = sorted({device.radio for device in self.devices})
        return [self._summarize(radio, [each for each in self.devices if each.radio == radio]) for radio in radios]

    async def _provision(
        self, device: SimulatedDevice, end_user_id: str, free: asyncio.Semaphore, on_done: Callable[[], None] | None
    ) -> None:
        async with free:
            try:
                if device.binding is None:
                    await device.provision(end_user_id=end_user_id)
                self.ready += 1
            except SimulatorError as error:
                self.failures[device.serial] = error
        if on_done is not None:
            on_done()

    def _serials(self, count: int) -> list[str]:
        return [f"SIM-{self.seed}-{number:05d}" for number in range(count)]

    def _make_flash(self, serial: str) -> Flash:
        return MemoryFlash() if self._flash_root is None else DirectoryFlash(self._flash_root / serial)

    def _count_fact(self, fact: Fact) -> None:
        if fact.name == "acknowledged":
            self._acknowledged[fact.serial, fact.details["status"]] += 1
        if self._on_fact is not None:
            self._on_fact(fact)

    def _summarize(self, radio: RadioKind, devices: list[SimulatedDevice]) -> RadioSummary:
        def count_of(name: str) -> int:
            return sum(device.counts[name] for device in devices)

        return RadioSummary(
            radio=radio,
            devices=len(devices),
            online=sum(device.state is State.ONLINE for device in devices),
            unpaired=sum(device.state is State.UNPROVISIONED for device in devices),
            heartbeats=count_of("heartbeat"),
            commands=count_of("command_received"),
            executed=sum(self._acknowledged[device.serial, "executed"] for device in devices),
            refused=count_of("command_refused"),
            resets=count_of("reset_begun"),
            link_losses=count_of("offline"),
        )
