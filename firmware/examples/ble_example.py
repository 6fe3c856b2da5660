"""Example: the lines of provisioning.py over BLE with `aioble` (mip.install("aioble")). Not run by tests.

Pair before you write: the bind answer holds the token. `encrypted` below makes the stack ask for it.
"""

import asyncio
import json

import aioble
import bluetooth
import provisioning

SERVICE = bluetooth.UUID("8c1c0001-5f2e-4b1a-9d6e-2f3f6c1b7a10")
LINE_IN = bluetooth.UUID("8c1c0002-5f2e-4b1a-9d6e-2f3f6c1b7a10")
LINE_OUT = bluetooth.UUID("8c1c0003-5f2e-4b1a-9d6e-2f3f6c1b7a10")
ADVERTISE_MICROSECONDS = 250000
PART = 20  # bytes of a notification that every central takes


async def serve(runtime, name="device"):
    """Advertise, accept one app at a time, and answer the lines that it writes in parts, each ended by a newline."""
    service = aioble.Service(SERVICE)
    line_in = aioble.BufferedCharacteristic(service, LINE_IN, write=True, max_len=512)
    line_out = aioble.Characteristic(service, LINE_OUT, notify=True)
    aioble.register_services(service)
    while True:
        connection = await aioble.advertise(ADVERTISE_MICROSECONDS, name=name, services=[SERVICE])
        async with connection:
            await connection.pair(bond=False, le_secure=True)
            await _talk(connection, line_in, line_out, runtime)


async def _talk(connection, line_in, line_out, runtime):
    line = b""
    while connection.is_connected():
        await line_in.written()
        line += line_in.read()
        if len(line) > provisioning.LONGEST_LINE:
            return
        if line.endswith(b"\n"):
            try:
                answer = await provisioning.answer(line, runtime)
            except ValueError as error:
                answer = {"ok": False, "error": str(error)}
            said = json.dumps(answer).encode() + b"\n"
            for at in range(0, len(said), PART):
                line_out.notify(connection, said[at : at + PART])
                await asyncio.sleep_ms(20)
            line = b""
