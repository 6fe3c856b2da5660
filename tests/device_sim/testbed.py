"""Everything real that a device meets but the gateway itself: a broker, a front door, and an ear on every topic."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiomqtt

from device_sim import Flash, GatewayApi, MemoryFlash, Options, SimulatedDevice
from device_sim.options import RadioKind
from tests.device_sim.support import API_KEY, GUARD_SECONDS, Broker, StubGateway, mosquitto, seeded, stub_gateway

QUICK = Options(backoff_first=0.02, backoff_longest=0.1)


@dataclass
class DeviceTestbed:
    """What a test of a living device needs."""

    broker: Broker
    gateway: StubGateway
    api: GatewayApi
    observer: aiomqtt.Client

    def device(
        self,
        *,
        radio: RadioKind = "wifi",
        options: Options = QUICK,
        flash: Flash | None = None,
        serial: str = "SN1",
        seed: int = 1,
    ) -> SimulatedDevice:
        """A device with quick heartbeats and, unless the options say otherwise, quick reconnects."""
        return SimulatedDevice(
            serial=serial,
            radio=radio,
            flash=flash or MemoryFlash(),
            api=self.api,
            interval=0.05,
            rng=seeded(seed),
            options=options,
        )

    async def wait_for_message(self, ending: str, payload: bytes | None = None) -> aiomqtt.Message:
        """The next message on a topic that ends so, and, if asked for, with that payload."""
        async for message in self.observer.messages:
            if message.topic.value.endswith(ending) and payload in (None, message.payload):
                return message
        raise AssertionError("the iterator ends with an exception only")

    async def command(
        self, device: SimulatedDevice, command_type: str, *, command_id: str = "cmd_1", retain: bool = True
    ) -> None:
        """Publish a signed command for the device's own generation."""
        binding = device.binding
        assert binding is not None
        payload = self.gateway.signer.command(
            command_type, command_id=command_id, device_id=binding.device_id, generation=binding.generation
        )
        topic = f"{binding.mqtt.topic_prefix}devices/{binding.device_id}/commands/{command_type}"
        await self.observer.publish(topic, payload, qos=1, retain=retain)


@contextlib.asynccontextmanager
async def open_testbed(folder: Path, *, prefix: str = "") -> AsyncIterator[DeviceTestbed]:
    """Set a stage with an anonymous Mosquitto."""
    async with (
        mosquitto(folder) as broker,
        stub_gateway(mqtt_port=broker.port, prefix=prefix) as gateway,
        GatewayApi(gateway.url, API_KEY) as api,
        broker.client("ear") as observer,
    ):
        await observer.subscribe("#", qos=1)
        yield DeviceTestbed(broker, gateway, api, observer)


@contextlib.asynccontextmanager
async def running(device: SimulatedDevice) -> AsyncIterator[None]:
    """Provision a device unless it is, and let it live as long as the block."""
    if device.binding is None:
        await device.provision(end_user_id="eu_1")
    task = asyncio.create_task(device.run())
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def fact_details(device: SimulatedDevice, name: str) -> list[dict[str, object]]:
    """The details of every fact of a name."""
    return [dict(each.details) for each in device.facts if each.name == name]
