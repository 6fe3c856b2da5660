"""Runs a device on a real flash: one JSON line in with what happens, one line out with what the device did.

- `["start", path, wiped, kept]` makes a flash with these values in a folder that does not exist, and powers on.
- `["power_on", cut]` starts again from the flash alone.
- `["event", now, event, cut]` gives one event.
- `["flash"]` returns both areas, `["heap"]` the bytes in use after a collection.

With `cut` the power goes before the action of this number, and the answer says so.

`published` and `publish_failed` name the message by its number, since the device was made.
"""

import gc

gc.threshold(4096)  # as main.py does

import json  # noqa: E402
import sys  # noqa: E402

import wire  # noqa: E402
from device import Device  # noqa: E402
from flash import Flash  # noqa: E402


class Bench:
    """One device, what it has published, and the switch of its power."""

    def __init__(self, path, wiped, kept):
        self.flash, self.device, self.sent = Flash(path), Device(), []
        for area, values in (("wiped", wiped), ("kept", kept)):
            for name in values:
                self.flash.write(area, name, values[name])

    def power_on(self, cut):
        """Start from the flash alone; return what the device did, and whether the power went."""
        self.device = Device()
        return self.give(self.content(), 0, cut)

    def content(self):
        """Return the event of a start."""
        return ("power_on", self.flash.read("wiped"), self.flash.read("kept"))

    def give(self, event, now, cut):
        """Give one event, and carry out what comes of it and of a reboot; return as `power_on` does."""
        done = []
        for number, action in enumerate(self.device.handle(event, now)):
            if number == cut:
                return done, True
            done.append(action)
            if action[0] == "reboot":
                done += self.give(self.content(), now, None)[0]
            else:
                self.carry_out(action)
        return done, False

    def carry_out(self, action):
        """Do to the flash what the action says, or keep the message."""
        if action[0] == "write":
            self.flash.write(*action[1:])
        elif action[0] == "erase":
            self.flash.erase(*action[1:])
        elif action[0] == "publish":
            self.sent.append(action[:2] + (b"",) + action[3:])  # all that the device asks about it later

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


def show(value):
    """Write a value as JSON, piece by piece, since the heap has no room for all of its text; bytes become text."""
    out = sys.stdout
    if isinstance(value, (list, tuple)):
        out.write("[")
        for at, each in enumerate(value):
            out.write("," if at else "")
            show(each)
        out.write("]")
    elif isinstance(value, dict):
        out.write("{")
        for at, name in enumerate(value):
            out.write("," if at else "")
            show(name)
            out.write(":")
            show(value[name])
        out.write("}")
    else:
        json.dump(value.decode() if isinstance(value, bytes) else value, out)


def main():
    """Read lines until the input ends."""
    bench = None
    for line in sys.stdin:
        order = json.loads(line)
        if order[0] == "start":
            bench = Bench(order[1], order[2], order[3])
            answer = bench.power_on(None)
        elif order[0] == "power_on":
            answer = bench.power_on(order[1])
        elif order[0] == "event":
            answer = bench.give(bench.read(order[2]), order[1], order[3])
        elif order[0] == "flash":
            answer = [bench.flash.read("wiped"), bench.flash.read("kept")]
        else:
            gc.collect()
            answer = gc.mem_alloc()
        show([answer, bench.device.state])
        print()


main()
