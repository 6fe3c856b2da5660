"""Runs a device on a real flash: one JSON line in with what happens, one line out with what the device did.

- `["start", path, wiped, kept]` makes a flash with these values in a folder that does not exist, and powers on.
- `["event", now, event, cut]` gives one event. With `cut` the power goes before the action of this number.
- `["flash"]` returns both areas, `["heap"]` the bytes in use after a collection.

`published` and `publish_failed` name the message by its number, since the device was made.
"""

import gc
import json
import sys

import wire
from device import Device
from flash import Flash


class Bench:
    """One device, what it has published, and the switch of its power."""

    def __init__(self, path, wiped, kept):
        self.flash, self.device, self.sent = Flash(path), Device(), []
        for area, values in (("wiped", wiped), ("kept", kept)):
            for name in values:
                self.flash.write(area, name, values[name])

    def power_on(self):
        """Start from the flash alone; return what the device did."""
        self.device = Device()
        return self.give(("power_on", self.flash.read("wiped"), self.flash.read("kept")), 0, None)

    def give(self, event, now, cut):
        """Give one event, carry out what comes of it, and what comes of a reboot or a power cut."""
        done = []
        for number, action in enumerate(self.device.handle(event, now)):
            if number == cut:
                return done + self.power_on()
            done.append(action)
            if action[0] == "reboot":
                done += self.give(("power_on", self.flash.read("wiped"), self.flash.read("kept")), now, None)
            else:
                self.carry_out(action)
        return done

    def carry_out(self, action):
        """Do to the flash what the action says, or keep the message."""
        if action[0] == "write":
            self.flash.write(*action[1:])
        elif action[0] == "erase":
            self.flash.erase(*action[1:])
        elif action[0] == "publish":
            self.sent.append(action)

    def read(self, event):
        """Make an event of its JSON."""
        kind = event[0]
        if kind == "command":
            return ("command", event[1], event[2].encode() + b" " * (event[3] if event[3:] else 0))
        if kind == "errors":
            return ("errors", event[1].encode())
        if kind == "provisioned":
            return ("provisioned", wire.binding_from_answer(event[1]), event[2])
        if kind in ("published", "publish_failed"):
            return tuple([kind, self.sent[event[1]]] + event[2:])
        return tuple(event)


def plain(value):
    """Return a value that JSON can hold: bytes become text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def main():
    """Read lines until the input ends."""
    bench = None
    for line in sys.stdin:
        order = json.loads(line)
        if order[0] == "start":
            bench = Bench(order[1], order[2], order[3])
            answer = {"actions": bench.power_on(), "state": bench.device.state}
        elif order[0] == "event":
            done = bench.give(bench.read(order[2]), order[1], order[3])
            answer = {"actions": done, "state": bench.device.state}
        elif order[0] == "flash":
            answer = [bench.flash.read("wiped"), bench.flash.read("kept")]
        else:
            gc.collect()
            answer = gc.mem_alloc()
        print(json.dumps(plain(answer)))


main()
