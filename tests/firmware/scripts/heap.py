"""Measures the heap: `heap.py HEARTBEATS FLASH ANSWER COMMAND…`, with the JSON of a bind and of commands.

All of the firmware is loaded, as on a board. Each command arrives and is confirmed, then the heartbeats
are published. Prints the bytes in use, after a collection and at the highest.
"""

import gc

gc.threshold(4096)  # as main.py does

import json  # noqa: E402
import sys  # noqa: E402

import provisioning  # noqa: E402, F401  # for its size
import runtime  # noqa: E402, F401  # the same, with links, MQTT and HTTP
import wire  # noqa: E402
from device import Device  # noqa: E402
from flash import Flash  # noqa: E402

peak = [0]
NOW = 1_793_534_400_000


def used():
    """Return the bytes in use after a collection."""
    gc.collect()
    return gc.mem_alloc()


def carry_out(device, flash, event, now):
    """Give an event and carry out what comes of it; every message is confirmed."""
    actions = device.handle(event, now)
    peak[0] = max(peak[0], gc.mem_alloc())
    for action in actions:
        if action[0] == "write":
            flash.write(*action[1:])
        elif action[0] == "erase":
            flash.erase(*action[1:])
        elif action[0] == "publish":
            carry_out(device, flash, ("published", action), now)
        elif action[0] == "reboot":
            carry_out(device, flash, ("power_on", flash.read("wiped"), flash.read("kept")), now)


def main():
    """Run the life of a device, and print what it needs."""
    code = used()
    device, flash = Device(), Flash(sys.argv[2])
    carry_out(device, flash, ("power_on", {}, {}), NOW)
    with open(sys.argv[3], "rb") as file:
        binding = wire.binding_from_answer(wire.read_json(file.read()))
    carry_out(device, flash, ("provisioned", binding, []), NOW)
    del binding
    for name in sys.argv[4:]:
        carry_out(device, flash, ("link_up", "wifi", "mqtt"), NOW)
        with open(name, "rb") as file:
            payload = file.read()
        carry_out(device, flash, ("command", json.loads(payload)["type"], payload), NOW)
        del payload
    carry_out(device, flash, ("link_up", "wifi", "mqtt"), NOW)
    before = used()
    for number in range(int(sys.argv[1])):
        carry_out(device, flash, ("heartbeat_due",), NOW + 60_000 * number)
    print(json.dumps({"state": device.state, "code": code, "before": before, "after": used(), "peak": peak[0]}))


main()
