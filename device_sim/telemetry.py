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
MB_PER_RECORDING = 20.0
HOUR_MS = 3_600_000
FLAG_CHARGING, FLAG_LOW, FLAG_FULL, FLAG_WIFI, FLAG_LTE = 1, 2, 4, 8, 16


class Telemetry:
    """Health figures of a heartbeat. Time passes only by `report`, in milliseconds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.battery = rng.uniform(45, CHARGED)
        self.storage = rng.uniform(50, 1500)
        self.signal = rng.uniform(-75, -50)
        self.charging = False

    def _pass_time(self, elapsed: int, *, is_recording: bool) -> None:
        hours = elapsed / HOUR_MS
        rate = CHARGE_PER_HOUR if self.charging else -DRAIN_PER_HOUR * (2 if is_recording else 1)
        self.battery = min(CHARGED, max(1.0, self.battery + hours * rate * self._rng.uniform(0.8, 1.2)))
        self.charging = self.battery < CHARGED if self.charging else self.battery < LOW_BATTERY / 2
        if is_recording:
            self.storage = min(STORAGE_MB, self.storage + hours * 60 * RECORDED_MB_PER_MINUTE)
        self.signal = min(-40.0, max(-110.0, self.signal + self._rng.gauss(0, 2)))

    def free_storage(self, uploaded: int) -> None:
        """Free the storage of so many uploaded recordings."""
        self.storage = max(50.0, self.storage - MB_PER_RECORDING * uploaded)

    def state(self, *, is_recording: bool) -> str:
        """Return the contract's `device_state`."""
        if self.storage >= STORAGE_FULL_MB:
            return "storageFull"
        if self.charging:
            return "charging"
        if is_recording:
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

    def report(self, elapsed: int, connection: str, *, is_recording: bool, pending_recordings: int) -> dict[str, Any]:
        """Return the health fields of a heartbeat, `elapsed` milliseconds after the last one."""
        self._pass_time(elapsed, is_recording=is_recording)
        return {
            "battery_percent": round(self.battery),
            "storage_used_mb": round(self.storage),
            "storage_total_mb": STORAGE_MB,
            "signal_strength_dbm": round(self.signal),
            "device_state": self.state(is_recording=is_recording),
            "pending_recordings": pending_recordings,
            "flags": self.flags(connection),
            "connection_type": [connection],
        }
