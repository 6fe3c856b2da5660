"""Simulated wearables for a device gateway: firmware, flash, radios and companion app, for trials and for your tests.

    async with GatewayApi("http://127.0.0.1:8080", key) as api:
        device = SimulatedDevice(serial="SN1", flash=MemoryFlash(), api=api, interval=1.0)
        await device.provision(end_user_id="eu_1")
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(device.run())
            await device.wait_for("online")
            ...                                   # POST /v1/devices/{id}/reset
            await device.wait_for("unprovisioned")
            living.cancel()

`Device` is the firmware alone: a state machine without I/O, for simulations that bring their own clock and flash.
"""

from device_sim.app import GatewayApi
from device_sim.backoff import Backoff
from device_sim.binding import Binding, Endpoint
from device_sim.device import Device, State
from device_sim.errors import (
    AnswerError,
    ApiError,
    PowerCutError,
    ProvisioningError,
    RadioError,
    SimulatorError,
    UnreachableError,
)
from device_sim.facts import Fact
from device_sim.faults import Faults, NoFaults, SeededFaults
from device_sim.flash import DirectoryFlash, Flash, MemoryFlash
from device_sim.fleet import Fleet
from device_sim.options import Options
from device_sim.runtime import SimulatedDevice

__all__ = [
    "AnswerError",
    "ApiError",
    "Backoff",
    "Binding",
    "Device",
    "DirectoryFlash",
    "Endpoint",
    "Fact",
    "Faults",
    "Flash",
    "Fleet",
    "GatewayApi",
    "MemoryFlash",
    "NoFaults",
    "Options",
    "PowerCutError",
    "ProvisioningError",
    "RadioError",
    "SeededFaults",
    "SimulatedDevice",
    "SimulatorError",
    "State",
    "UnreachableError",
]
