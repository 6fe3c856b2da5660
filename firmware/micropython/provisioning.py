"""Provisioning over a serial line: one JSON object a line from the companion app, one as the answer.

`{"do": "info"}` answers serial number, version, state, and what to relay of the last reset: the app may relay
`last_command` in a heartbeat, while the device is unpaired.

`{"do": "provision", "bind": …, "networks": …}` brings the answer of `POST /v1/devices/{id}/bind` and WiFi networks.

`{"do": "reset"}` wipes as the button does. `{"do": "shutdown"}` goes offline cleanly, and stops.
"""

import json

import wire
from strict_json import require

LONGEST_LINE = 8192
NETWORK = (("ssid", str), ("psk", str))


async def serve(reader, runtime):
    """Answer each line of a serial port until it ends. Facts of the device appear between the answers."""
    while True:
        try:
            line = await reader.readline()
            if not line:
                return
            said = await answer(line, runtime)
        except Exception as error:  # such as a heap that is full: the line stays usable
            said = {"ok": False, "error": str(error) or repr(error)}
        print(json.dumps(said))


async def answer(line, runtime):
    """Process one line, and return the answer as a dict. Raises ValueError that says what is wrong with the line."""
    require(len(line) <= LONGEST_LINE, f"a line may have {LONGEST_LINE} bytes at most")
    try:
        asked = wire.read_json(line.strip())
        what = asked["do"]
    except (ValueError, KeyError, TypeError):
        raise ValueError('send one JSON object a line, such as {"do": "info"}')
    said = {"ok": True}
    if what == "info":
        kept = runtime.flash.read("kept")
        said.update({name: kept.get(name) for name in ("serial_number", "firmware_version", "last_command")})
        said["state"] = runtime.device.state
    elif what == "provision":
        networks = [wire.pick(each, NETWORK) for each in asked.get("networks", ())]
        binding = wire.binding_from_answer(asked.get("bind"))
        require(runtime.device.state == "unprovisioned", "the device is paired; reset it first")
        await runtime.deliver(("provisioned", binding, networks))
        said.update({name: binding[name] for name in ("device_id", "binding_generation")})
    elif what == "reset":
        await runtime.deliver(("local_reset",))
    else:
        require(what == "shutdown", "do is one of info, provision, reset, shutdown")
        runtime.is_running = False
    return said
