"""``make run``: a gateway with a few simulated devices, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Final

from rich.console import Console

from device_sim import Fact
from gateway.demo.environment import Radio, Stage, stage
from gateway.demo.scenario import SHOWN
from gateway.errors import UnavailableError

_DEVICES: Final[tuple[tuple[str, Radio], ...]] = (
    ("DEMO-WIFI", "wifi"),
    ("DEMO-CELLULAR", "cellular"),
    ("DEMO-BLE", "ble"),
)


async def keep_running(database: str | None = None) -> int:
    """Serve until SIGTERM or SIGINT, and print what the devices do. A device that was reset stays unpaired."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    console = Console(highlight=False, soft_wrap=True)
    async with contextlib.AsyncExitStack() as stack:
        scene = await enter_stage(stack, database)
        devices = [scene.device(serial, radio, _teller(console)) for serial, radio in _DEVICES]
        bindings = [await device.provision(end_user_id="eu_demo") for device in devices]
        url, key = scene.gateway.http.url, scene.key
        console.print(f"HTTP  {url}\nMQTT  mqtt://{scene.gateway.broker.advertised} (embedded broker)\nkey   {key}")
        console.print(f"page  {url}/ (sign in with the key)\n")
        for device, binding in zip(devices, bindings, strict=True):
            console.print(f"{device.serial:<14} {binding.device_id}")
        reset = f"{url}/v1/devices/{bindings[0].device_id}/reset"
        console.print("\nReset the first one, then look at it:", style="bold")
        header = f"printf 'Authorization: Bearer %s\\n' {key} | curl -s -H @-"  # no argument: others can read those
        console.print(f"{header} -X POST {reset}")
        console.print(f"{header} {url}/v1/devices/{bindings[0].device_id}/commands")
        console.print("\nWhat the devices do is told below. Ctrl-C stops it and leaves nothing behind.\n")
        with contextlib.suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as group:
                lives = [group.create_task(device.run(), name=device.serial) for device in devices]
                await stop.wait()
                for life in lives:
                    life.cancel()
    return 0


async def enter_stage(stack: contextlib.AsyncExitStack, database: str | None) -> Stage:
    """Set the demo up on the usual ports where they are free, else on others.

    Raises:
        UnavailableError: as :func:`gateway.demo.environment.stage` does.
    """
    try:
        return await stack.enter_async_context(stage(_free(8080), _free(1883), database))
    except (UnavailableError, ExceptionGroup):  # another program took a port after it was looked at, or it fails again
        return await stack.enter_async_context(stage(database=database))


def _teller(console: Console) -> Callable[[Fact], None]:
    def tell(fact: Fact) -> None:
        if fact.name in SHOWN:
            console.print(f"{fact.serial:<14} {fact.text}", markup=False)

    return tell


def _free(port: int) -> str:
    """Return the usual port where it is free, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return "127.0.0.1:0"
    return f"127.0.0.1:{port}"
