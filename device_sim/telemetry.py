"""Telemetry of a device from one seed: a battery that drains, a storage that fills, a signal that varies."""

import random
from typing import Any

STORAGE_MB = 4096
STORAGE_FULL_MB = 4000
LOW_BATTERY = 20.0
CHARGED = 100.0
DRAIN_PER_HOUR = 4.0  # percent, idle; recording doubles it
CHARGE_PER_HOUR = 60.0
RECORDED_MB_PER_MINUTE = 0.25  # 32 kbit/s, the contract's default
HOUR_MS = 3_600_000
FLAG_CHARGING, FLAG_LOW, FLAG_FULL, FLAG_WIFI, FLAG_LTE = 1, 2, 4, 8, 16


class Telemetry:
    """Health figures of a heartbeat. Time passes only by `pass_time`, in milliseconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.battery = rng.uniform(45, CHARGED)
        self.storage = rng.uniform(50, 1500)
        self.signal = rng.uniform(-75, -50)
        self.charging = False
        self.recording = False
        self.pending_recordings = rng.randrange(4)

    def pass_time(self, elapsed: int) -> None:
        """Advance the time by `elapsed` milliseconds."""
        hours = elapsed / HOUR_MS
        rate = CHARGE_PER_HOUR if self.charging else -DRAIN_PER_HOUR * (2 if self.recording else 1)
        self.battery = min(CHARGED, max(1.0, self.battery + hours * rate * self._rng.uniform(0.8, 1.2)))
        self.charging = self.battery < CHARGED if self.charging else self.battery < LOW_BATTERY / 2
        if self.recording:
            self.storage = min(STORAGE_MB, self.storage + hours * 60 * RECORDED_MB_PER_MINUTE)
        self.signal = min(-40.0, max(-110.0, self.signal + self._rng.gauss(0, 2)))

    def execute(self, command_type: str) -> dict[str, Any]:
        """Apply a command, and return its result.

        Raises:
            ValueError: the command has no such effect, as a reset.
        """
        match command_type:
            case "start_recording":
                return self.start_recording()
            case "stop_recording":
                return self.stop_recording()
            case "trigger_upload":
                return self.upload()
            case "reboot":
                return {"rebooting": True}
            case _:
                raise ValueError(f"no effect of {command_type!r}")

    def start_recording(self) -> dict[str, Any]:
        """Start a recording."""
        self.recording = True
        return {"recording": True}

    def stop_recording(self) -> dict[str, Any]:
        """End the recording, which then waits for its upload."""
        if self.recording:
            self.recording = False
            self.pending_recordings += 1
        return {"recording": False, "pending_recordings": self.pending_recordings}

    def upload(self) -> dict[str, Any]:
        """Upload every finished recording and free its storage."""
        uploaded, self.pending_recordings = self.pending_recordings, 0
        self.storage = max(50.0, self.storage - 20.0 * uploaded)
        return {"uploaded": uploaded}

    def state(self) -> str:
        """Return the contract's `device_state`."""
        if self.storage >= STORAGE_FULL_MB:
            return "storageFull"
        if self.charging:
            return "charging"
        if self.recording:
            return "recording"
        return "lowBattery" if self.battery < LOW_BATTERY else "idle"

    def flags(self, connection: str) -> int:
        """Return the contract's bit field."""
        return (
            FLAG_CHARGING * self.charging
            | FLAG_LOW * (self.battery < LOW_BATTERY)
            | FLAG_FULL * (self.storage >= STORAGE_FULL_MB)
            | FLAG_WIFI * (connection == "wifi")
            | FLAG_LTE * (connection == "4g")
        )

    def report(self, connection: str) -> dict[str, Any]:
        """Return the health fields of a heartbeat."""
        return {
            "battery_percent": round(self.battery),
            "storage_used_mb": round(self.storage),
            "storage_total_mb": STORAGE_MB,
            "signal_strength_dbm": round(self.signal),
            "device_state": self.state(),
            "pending_recordings": self.pending_recordings,
            "flags": self.flags(connection),
            "connection_type": [connection],
        }
