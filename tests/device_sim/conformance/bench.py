"""The kit against a simulated device in one process: the kit's steps are done on the device at once."""

import asyncio
import functools
import ssl
from dataclasses import dataclass, field
from typing import Any, Protocol

from device_sim import GatewayApi, MemoryFlash, Options, SimulatedDevice
from device_sim.conformance.findings import LINES, Findings, UncheckedError
from device_sim.conformance.kit import Kit, Settings
from device_sim.conformance.log import Log
from device_sim.conformance.runner import run, serving
from device_sim.conformance.steps import Steps
from device_sim.conformance.tls_side import TlsSide
from device_sim.device import State
from device_sim.tls import tls_context
from tests.device_sim.support import seeded

INTERVAL = 0.2
ANY_PORT = ("127.0.0.1", 0)
PATIENCE = 8.0
QUICK = Options(
    backoff_first=0.05, backoff_longest=0.8, backoff_refused=0.8, backoff_stable=1.0, firmware_version="1.4.2"
)


@dataclass
class Rig:
    """The device under test, its flash, and the hands that bind it and cut its power."""

    make: type[SimulatedDevice] = SimulatedDevice
    options: Options = QUICK
    can_cut_power: bool = True
    api_type: type[GatewayApi] = GatewayApi
    flash: MemoryFlash = field(default_factory=MemoryFlash)
    url: str = ""
    ca_file: str | None = None
    device: SimulatedDevice | None = None
    living: "asyncio.Task[None] | None" = None
    api: GatewayApi | None = None

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Bind through the companion app, once the device is unpaired."""
        del answer, first
        if self.device is None:
            await self.power_on()
        assert self.device is not None
        try:
            async with asyncio.timeout(PATIENCE):
                await self.device.wait_for(State.UNPROVISIONED)
        except TimeoutError:
            raise UncheckedError("the device is still paired") from None
        await self.device.provision(end_user_id="eu_1")

    async def cut_power(self) -> None:
        """Drop the connection and everything but the flash, then start again."""
        if not self.can_cut_power:
            raise UncheckedError("this rig has no switch")
        await self.power_off()
        await self.power_on()

    def patience(self, usual: float, *, first: bool) -> float:
        """Wait as for everything else."""
        del first
        return usual

    async def power_on(self) -> None:
        """Start the device on its flash."""
        self.api = self.api_type(self.url, "sk_test_kit", tls=_trust(self.ca_file))
        self.device = self.make(
            serial="DUT-1", flash=self.flash, api=self.api, interval=INTERVAL, rng=seeded(), options=self.options
        )
        self.living = asyncio.create_task(self.device.run())
        await self.device.wait_for_fact("powered_on")

    async def power_off(self) -> None:
        """Stop it in the middle of whatever it does, without an offline message."""
        if self.device is None or self.living is None or self.api is None:
            return
        link = self.device._link  # noqa: SLF001  # a power cut is nothing that a device offers
        if link is not None:
            link._radio.cut()  # noqa: SLF001  # the same
        self.living.cancel()
        await asyncio.wait([self.living])
        await self.api.aclose()


@functools.cache
def _trust(ca_file: str | None) -> ssl.SSLContext:
    """The context for this authority; to load those of the system takes long."""
    return tls_context(ca_file)


class AnyRig(Steps, Protocol):
    """Steps that also switch the device off in the end, and know the kit's HTTP server."""

    url: str

    async def power_off(self) -> None:
        """Stop the device."""


async def judge(
    rig: AnyRig, *, lines: list[str] | None = None, tls: TlsSide | None = None, patience: float = PATIENCE
) -> Findings:
    """Run the whole kit against a device, and return the findings."""
    findings = Findings(lines or list(LINES))
    kit = Kit(Settings(heartbeat_seconds=INTERVAL, patience=patience), findings, rig, Log(), tls)
    async with serving(kit, (ANY_PORT, ANY_PORT), ANY_PORT) as http:
        rig.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{http.port}"
        try:
            await run(kit)
        finally:
            await rig.power_off()
    return findings
