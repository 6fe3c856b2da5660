"""Provisioning over a serial line: one JSON object a line from the companion app, one as the answer.

`{"do": "info"}` answers serial number, version, state, and what to relay of the last reset.

`{"do": "provision", "bind": …, "networks": …}` brings the answer of `POST /v1/devices/{id}/bind` and WiFi networks.

`{"do": "reset"}` wipes as the button does. `{"do": "shutdown"}` goes offline cleanly, and stops.
"""

import gc
import json

import wire

LONGEST_LINE = 8192


async def serve(reader, runtime):
    """Answer each line of a serial port until it ends. Facts of the device appear between the answers."""
    while True:
        try:
            line = [await reader.readline()]
            if not line[0]:
                return
            said = await answer(line, runtime)
        except Exception as error:  # such as a heap that is full: the line stays usable
            said = failed(repr(error))
        print(json.dumps(said))


async def answer(line, runtime):
    """Process one line, and return the answer as a dict: `ok`, and `error` with the remedy if it is false.

    The line is the only member of a list and is taken out of it, so that a bind answer does not fill a small heap.
    """
    try:
        what, binding, networks = read(line.pop())
    except ValueError as error:
        return failed(str(error))
    if what == "info":
        return info(runtime)
    if what == "provision":
        return await provision(binding, networks, runtime)
    if what == "reset":
        await runtime.feed(("local_reset",))
        return {"ok": True}
    if what == "shutdown":
        await runtime.stop()
        return {"ok": True}
    return failed("do is one of info, provision, reset, shutdown")


def read(line):
    """Return what a line asks for, and of a bind answer the part that a device keeps. Raises ValueError."""
    if len(line) > LONGEST_LINE:
        raise ValueError(f"a line may have {LONGEST_LINE} bytes at most")
    try:
        asked = wire.read_json(line.strip())
        what = asked["do"]
    except (ValueError, KeyError, TypeError):
        raise ValueError('send one JSON object a line, such as {"do": "info"}')
    if what != "provision":
        return what, None, None
    try:
        networks = [{"ssid": str(each["ssid"]), "psk": str(each["psk"])} for each in asked.get("networks", ())]
    except (KeyError, TypeError):
        raise ValueError("networks has to be a list of objects with ssid and psk")
    return what, wire.binding_from_answer(asked.get("bind")), networks


async def provision(binding, networks, runtime):
    """Write a binding to flash. A paired device refuses it: reset it first."""
    if runtime.device.state != "unprovisioned":
        return failed("the device is paired; reset it first")
    await runtime.feed(("provisioned", binding, networks))
    return {"ok": True, "device_id": binding["device_id"], "binding_generation": binding["binding_generation"]}


def info(runtime):
    """Return what an app may know without a secret."""
    kept = runtime.flash.read("kept")
    gc.collect()
    return {
        "ok": True,
        "serial_number": kept.get("serial_number"),
        "firmware_version": kept.get("firmware_version"),
        "state": runtime.device.state,
        "last_command": kept.get("last_command"),  # the app may relay it in a heartbeat of an unpaired device
        "heap": {"used": gc.mem_alloc(), "free": gc.mem_free()},
    }


def failed(reason):
    """Return the answer to a line that changed nothing."""
    return {"ok": False, "error": reason}
