"""Start of the firmware: `micropython main.py config.json` on the Unix port, and by itself on a board."""

import gc
import sys

gc.threshold(4096)  # collect often, or what the compiler leaves behind splits a small heap into small pieces
sys.path.append(f"{sys.path[0]}/lib")  # a board has /lib there already

import device  # noqa: E402, F401  # the largest files first, while the heap is in one piece
from runtime import Runtime  # noqa: E402

gc.collect()

import asyncio  # noqa: E402
import json  # noqa: E402

import net  # noqa: E402
import provisioning  # noqa: E402
from board import Board  # noqa: E402
from flash import Flash  # noqa: E402

VERSION = "1.0.0"


async def main(path):
    """Run the device by the settings of a JSON file; docs/micropython.md describes them."""
    with open(path) as file:
        config = json.load(file)
    config["firmware_version"] = VERSION
    if config.get("ca_file"):
        with open(config["ca_file"], "rb") as file:
            config["trusted"] = net.trust(file.read())
    flash, board = Flash(config.get("flash", "flash")), Board(config)
    if "serial_number" not in flash.read("kept"):  # the first start: the values of the factory
        for name in ("cellular_apn", "serial_number"):  # the last one says that all are there
            flash.write("kept", name, config.get(name))
    if "device_token" not in flash.read("wiped"):
        flash.write("kept", "firmware_version", VERSION)  # of a paired device the runtime does it, see there
    runtime = Runtime(flash, config, board)
    asyncio.create_task(provisioning.serve(asyncio.StreamReader(sys.stdin.buffer), runtime))
    asyncio.create_task(board.watch(runtime))
    await runtime.run()


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "config.json"))
except Exception as error:  # a device must not stay dead: start again from the flash
    sys.print_exception(error)
    Board({}).reboot()
    sys.exit(1)
