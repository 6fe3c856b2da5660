"""The hardware side of the firmware, with stand-ins for what this machine lacks: pins, WiFi, watchdog."""

import json

from tests.firmware.micropython import SCRIPTS, said


def test_button_led_watchdog_and_wifi() -> None:
    """Held long enough the button wipes once; the LED is on; the watchdog is fed; the network in reach is joined."""
    did = json.loads(said(SCRIPTS / "hardware.py")[-1])
    assert did["delivered"] == ["local_reset"]
    assert set(did["led"]) == {1}
    assert (did["watchdog_ms"], did["fed"] > 5, did["resets"]) == (60_000, True, 1)
    assert did["joined"] == [["elsewhere", "x"], ["ward", "y"], ["elsewhere", "x"]]
    assert did["error"] == "no WiFi network in reach"
