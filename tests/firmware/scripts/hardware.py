"""Runs `board.Board` with stand-ins for pins, WiFi and watchdog, and prints what the firmware did with them as JSON."""

import asyncio
import json
import sys

WAITS = 3  # polls until a network that is in reach has joined
did = {"fed": 0, "led": [], "joined": [], "resets": 0, "delivered": []}


class Module:
    """A module that this machine lacks."""


class Pin:
    """A pin: the button is held from the start, the LED keeps its values."""

    IN, OUT, PULL_UP = "in", "out", "up"

    def __init__(self, number, *modes):
        self.number, self.modes = number, modes

    def value(self, level=None):
        """Return the level of the button, or set the LED."""
        if level is None:
            return 0
        did["led"].append(level)
        return None


class Watchdog:
    """Counts how often it is fed."""

    def __init__(self, timeout):
        did["watchdog_ms"] = timeout

    def feed(self):
        """Count."""
        did["fed"] += 1


class Wlan:
    """A station in reach of one network."""

    def __init__(self, kind):  # noqa: ARG002  # there is one
        self.ssid, self.polls = None, 0

    def active(self, on):
        """Be on."""

    def connect(self, ssid, psk):
        """Begin to join."""
        did["joined"].append([ssid, psk])
        self.ssid, self.polls = ssid, 0

    def isconnected(self):
        """Return True after some polls, in the right network."""
        self.polls += 1
        return self.ssid == "ward" and self.polls > WAITS

    def disconnect(self):
        """Leave."""
        self.ssid = None


def reset():
    """Count what would reset the board."""
    did["resets"] += 1


def settime():
    """Fail as without a time server."""
    raise OSError("no time server")


class Runtime:
    """Has a device that is online, and keeps what the button delivers."""

    def __init__(self):
        self.device = Module()
        self.device.state = "online"

    async def deliver(self, event):
        """Keep it."""
        did["delivered"].append(event[0])


machine, network, ntptime = Module(), Module(), Module()
machine.Pin, machine.WDT, machine.reset = Pin, Watchdog, reset
network.WLAN, network.STA_IF = Wlan, 0
ntptime.settime = settime
sys.modules["machine"], sys.modules["network"], sys.modules["ntptime"] = machine, network, ntptime

import board  # noqa: E402  # after its modules are there

board.HOLD_MS, board.WIFI_SECONDS = 200, 1


async def main():
    """Hold the button, join, reboot."""
    made = board.Board({"button_pin": 0, "led_pin": 2, "watchdog_seconds": 60})
    watching = asyncio.create_task(made.watch(Runtime()))
    await made.join("wifi", [{"ssid": "elsewhere", "psk": "x"}, {"ssid": "ward", "psk": "y"}])
    try:
        made._wlan.disconnect()  # noqa: SLF001  # the stand-in
        await made.join("wifi", [{"ssid": "elsewhere", "psk": "x"}])
    except OSError as error:
        did["error"] = str(error)
    watching.cancel()
    made.reboot()
    print(json.dumps(did))


asyncio.run(main())
