"""Start of the firmware: `micropython main.py config.json` on the Unix port, and by itself on a board."""

import gc

gc.threshold(4096)  # collect often, or what the compiler leaves behind splits a small heap into small pieces

import asyncio  # noqa: E402  # after the threshold is set
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

import net  # noqa: E402
import provisioning  # noqa: E402
from board import Board  # noqa: E402
from flash import Flash  # noqa: E402
from runtime import Runtime  # noqa: E402

VERSION = "1.0.0"


def configuration(path):
    """Return the settings of a JSON file; docs/micropython.md describes them."""
    with open(path) as file:
        config = json.load(file)
    config["firmware_version"] = VERSION
    if config.get("ca_file"):
        with open(config["ca_file"], "rb") as file:
            config["trusted"] = net.trust(file.read())
    return config


def manufacture(flash, config):
    """Write the factory's values, once, and the version of this firmware."""
    if flash.read("kept").get("serial_number") is None:
        for name in ("firmware_version", "cellular_apn", "serial_number"):  # the last one says that all are there
            flash.write("kept", name, config.get(name))
    if "device_token" not in flash.read("wiped"):
        flash.write("kept", "firmware_version", VERSION)  # of a paired device the runtime does it, see there


def power_cut():
    """Return a function that kills the process at its n-th call, for tests: n is FIRMWARE_DIE_AT."""
    if sys.platform != "linux" or not os.getenv("FIRMWARE_DIE_AT"):
        return lambda: None
    left = [int(os.getenv("FIRMWARE_DIE_AT"))]

    def step():
        left[0] -= 1
        if left[0] == 0:
            os.system("kill -9 $PPID")  # noqa: S605, S607  # MicroPython has no os.kill

    return step


def restart():
    """Reset the board. On the Unix port end with an error."""
    if sys.platform == "linux":
        sys.exit(1)
    import machine

    machine.reset()


async def main(path):
    """Run the device."""
    config = configuration(path)
    flash = Flash(config.get("flash", "flash"))
    manufacture(flash, config)
    board = Board(config)
    runtime = Runtime(flash, config, board, power_cut())
    serial = asyncio.create_task(provisioning.serve(asyncio.StreamReader(sys.stdin.buffer), runtime))
    watch = asyncio.create_task(board.watch(runtime))
    await runtime.run()
    serial.cancel()
    watch.cancel()


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "config.json"))
except Exception as error:  # a device must not stay dead: start again from the flash
    sys.print_exception(error)
    restart()
