"""Hardware around the firmware: reset button, LED, watchdog, WiFi, clock. What a board lacks does nothing."""

import asyncio
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
STEP_MS = 50
BLINKS = {"unprovisioned": 500, "provisioned": 100, "online": 0, "resetting": 50, "rebooting": 50}  # 0: on


class Board:
    """Pins by the configuration: `button_pin` (low while pressed), `led_pin`, `watchdog_seconds` (0: none)."""

    def __init__(self, config):
        self._button = self._led = self._watchdog = None
        self._wlan = network.WLAN(network.STA_IF) if network else None
        config = config if machine else {}
        if "button_pin" in config:
            self._button = machine.Pin(config["button_pin"], machine.Pin.IN, machine.Pin.PULL_UP)
        if "led_pin" in config:
            self._led = machine.Pin(config["led_pin"], machine.Pin.OUT)
        if config.get("watchdog_seconds"):
            self._watchdog = machine.WDT(timeout=config["watchdog_seconds"] * 1000)

    def now_ms(self):
        """Return milliseconds since 1970, or None while the clock is not set."""
        is_set = time.gmtime()[0] >= FIRST_YEAR
        return time.time_ns() // 1000000 + EPOCH_OFFSET * 1000 if is_set else None

    def reboot(self):
        """Reset the board. On the Unix port the runtime starts again instead."""
        if machine:
            machine.reset()

    async def join(self, connection, networks):
        """Join the first WiFi network that works, and set the clock. Raises OSError without one."""
        if not self._wlan or connection != "wifi" or self._wlan.isconnected():
            return None
        self._wlan.active(True)
        for each in networks:
            self._wlan.connect(each["ssid"], each["psk"])
            for _ in range(WIFI_SECONDS * 1000 // STEP_MS):
                if self._wlan.isconnected():
                    return _set_clock()
                await asyncio.sleep_ms(STEP_MS)
            self._wlan.disconnect()
        raise OSError("no WiFi network in reach")

    async def watch(self, runtime):
        """Feed the watchdog, blink, and wipe when the button was held. The watchdog starves if the loop hangs."""
        held = passed = 0
        while True:
            await asyncio.sleep_ms(STEP_MS)
            passed += STEP_MS
            if self._watchdog:
                self._watchdog.feed()
            if self._led:
                blink = BLINKS[runtime.device.state]
                self._led.value(1 if not blink else passed // blink % 2)
            held = held + STEP_MS if self._button and not self._button.value() else 0
            if held == HOLD_MS:
                asyncio.create_task(runtime.deliver(("local_reset",)))


def _set_clock():
    try:
        import ntptime

        ntptime.settime()
    except (ImportError, OSError):
        pass  # heartbeats go without sent_at, and no command expires
