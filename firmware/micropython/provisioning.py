"""Provisioning over a serial line: one JSON object a line from the companion app, one as the answer.

`{"do": "info"}` answers serial number, version, state, and what to relay of the last reset.

`{"do": "provision", "bind": …, "networks": …}` brings the answer of `POST /v1/devices/{id}/bind` and WiFi networks.

`{"do": "reset"}` wipes as the button does. `{"do": "shutdown"}` goes offline cleanly, and stops.
"""

import json

import wire

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
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a line may have {LONGEST_LINE} bytes at most")
    try:
        asked = wire.read_json(line.strip())
        what = asked["do"]
    except (ValueError, KeyError, TypeError):
        raise ValueError('send one JSON object a line, such as {"do": "info"}')
    if what == "info":
        return info(runtime)
    if what == "provision":
        return await provision(asked, runtime)
    if what == "reset":
        await runtime.deliver(("local_reset",)).wait()
    elif what == "shutdown":
        runtime.is_running = False
    else:
        raise ValueError("do is one of info, provision, reset, shutdown")
    return {"ok": True}


async def provision(asked, runtime):
    """Write a binding to flash. A paired device refuses it: reset it first."""
    networks = [wire.pick(each, NETWORK) for each in asked.get("networks", ())]
    binding = wire.binding_from_answer(asked.get("bind"))
    if runtime.device.state != "unprovisioned":
        raise ValueError("the device is paired; reset it first")
    await runtime.deliver(("provisioned", binding, networks)).wait()
    return {"ok": True, "device_id": binding["device_id"], "binding_generation": binding["binding_generation"]}


def info(runtime):
    """Return what an app may know. It may relay `last_command` in a heartbeat, while the device is unpaired."""
    said, kept = {"ok": True, "state": runtime.device.state}, runtime.flash.read("kept")
    for name in ("serial_number", "firmware_version", "last_command"):
        said[name] = kept.get(name)
    return said
