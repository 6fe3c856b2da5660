"""Run of one device on the command line: provision, run, reset, and provision again if asked."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from device_sim.device import State
from device_sim.errors import ApiError
from device_sim.runtime import SimulatedDevice

RESET_PENDING_TRIES = 20
RESET_PENDING_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class RunOptions:
    """Options of the run of one device."""

    end_user_id: str
    supersede_reset: bool = False
    reprovision: bool = False
    until_reset: bool = False


async def run_lifecycle(device: SimulatedDevice, options: RunOptions, on_unpaired: Callable[[], None]) -> None:
    """Provision the device if it is unbound, and run it. Return after a reset if the plan says so.

    Raises:
        SimulatorError: provisioning failed.
    """
    if device.binding is None:
        await device.provision(end_user_id=options.end_user_id, supersede_reset=options.supersede_reset)
    running = asyncio.create_task(device.run(), name=device.serial)
    following = asyncio.create_task(_handle_resets(device, options, on_unpaired))
    try:
        await asyncio.wait((running, following), return_when=asyncio.FIRST_COMPLETED)
    finally:
        running.cancel()
        following.cancel()
        await asyncio.wait((running, following))
    for task in (running, following):
        if not task.cancelled():
            task.result()


async def _handle_resets(device: SimulatedDevice, options: RunOptions, on_unpaired: Callable[[], None]) -> None:
    """Wait for resets, and continue as planned after each."""
    await device.wait_for_fact("powered_on")
    while True:
        await device.wait_for(State.UNPROVISIONED)
        if options.until_reset:
            return
        if not options.reprovision:
            on_unpaired()
            await asyncio.Event().wait()
        await _provision_again(device, options)


async def _provision_again(device: SimulatedDevice, options: RunOptions) -> None:
    """Bind again. Retry while the answer is `reset_pending`: the gateway may still process the report of the wipe."""
    for _ in range(RESET_PENDING_TRIES - 1):
        try:
            await device.provision(end_user_id=options.end_user_id, supersede_reset=options.supersede_reset)
        except ApiError as error:
            if error.code != "reset_pending":
                raise
            await asyncio.sleep(RESET_PENDING_PAUSE_SECONDS)
        else:
            return
    await device.provision(end_user_id=options.end_user_id, supersede_reset=options.supersede_reset)
