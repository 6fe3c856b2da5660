"""Hardware around the firmware: reset button, LED, watchdog, WiFi, clock. What a board lacks does nothing."""

import asyncio
import sys
import time

try:
    import machine
    import network
except ImportError:
    machine = network = None  # the Unix port

HOLD_MS = 10000  # the button is held this long before anything is wiped
WIFI_SECONDS = 20
FIRST_YEAR = 2025  # a clock before this year was never set
EPOCH_OFFSET = 946684800 if time.gmtime(0)[0] == 2000 else 0  # seconds from 1970 to the epoch of this port
BLINKS = {"unprovisioned": 500, "provisioned": 100, "online": 0, "resetting": 50, "rebooting": 50}  # 0: on


class Board:
    """Pins by the configuration: `button_pin` (low while pressed), `led_pin`, `watchdog_seconds` (0: none)."""

    def __init__(self, config):
        self._button = self._pin(config, "button_pin", "IN", "PULL_UP")
        self._led = self._pin(config, "led_pin", "OUT")
        seconds = config.get("watchdog_seconds", 0)
        self._watchdog = machine.WDT(timeout=seconds * 1000) if network and seconds else None
        self._wlan = network.WLAN(network.STA_IF) if network else None
        self._blink = BLINKS["rebooting"]

    def _pin(self, config, name, *modes):
        if not network or config.get(name) is None:
            return None
        return machine.Pin(config[name], *[getattr(machine.Pin, each) for each in modes])

    def now_ms(self):
        """Return milliseconds since 1970, or None while the clock is not set."""
        if time.gmtime()[0] < FIRST_YEAR:
            return None
        if sys.platform == "linux":
            return time.time_ns() // 1000000
        return (time.time() + EPOCH_OFFSET) * 1000

    def show(self, state):
        """Show the state: steady when online, else a blink of its own length."""
        self._blink = BLINKS[state]

    def reboot(self):
        """Reset the board. On the Unix port the runtime starts again instead."""
        if network:
            machine.reset()

    async def join(self, connection, networks):
        """Join the first WiFi network that works, and set the clock. Raises OSError without one."""
        if self._wlan is None or connection != "wifi" or self._wlan.isconnected():
            return
        self._wlan.active(True)
        for each in networks:
            self._wlan.connect(each["ssid"], each["psk"])
            for _ in range(WIFI_SECONDS * 10):
                if self._wlan.isconnected():
                    self._set_clock()
                    return
                await asyncio.sleep_ms(100)
            self._wlan.disconnect()
        raise OSError("no WiFi network in reach")

    def _set_clock(self):
        import ntptime

        try:
            ntptime.settime()
        except OSError:
            pass  # heartbeats go without sent_at, and no command expires

    async def watch(self, runtime):
        """Feed the watchdog, blink, and wipe when the button was held. The watchdog starves if the loop hangs."""
        held = steps = 0
        while True:
            await asyncio.sleep_ms(50)
            steps += 1
            if self._watchdog:
                self._watchdog.feed()
            if self._led:
                self._led.value(1 if not self._blink else steps * 50 // self._blink % 2)
            held = held + 50 if self._button and not self._button.value() else 0
            if held == HOLD_MS:
                runtime.deliver(("local_reset",))
