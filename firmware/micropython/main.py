"""Start of the firmware: `micropython main.py config.json` on the Unix port, and by itself on a board."""

import gc

gc.threshold(4096)  # collect often, or what the compiler leaves behind splits a small heap into small pieces

import asyncio  # noqa: E402  # after the threshold is set
import json  # noqa: E402
import sys  # noqa: E402

import device  # noqa: E402, F401  # the largest file first, while the heap is in one piece
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


async def main(path):
    """Run the device."""
    config = configuration(path)
    flash, board = Flash(config.get("flash", "flash")), Board(config)
    manufacture(flash, config)
    runtime = Runtime(flash, config, board)
    serial = asyncio.create_task(provisioning.serve(asyncio.StreamReader(sys.stdin.buffer), runtime))
    watch = asyncio.create_task(board.watch(runtime))
    await runtime.run()
    serial.cancel()
    watch.cancel()


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "config.json"))
except Exception as error:  # a device must not stay dead: start again from the flash
    sys.print_exception(error)
    Board({}).reboot()
    sys.exit(1)
