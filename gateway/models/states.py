"""States of a command, a token and a device, as the contract spells them (contract, sections 1 and 3)."""

from __future__ import annotations

import enum


class CommandStatus(enum.StrEnum):
    """Where a command stands; the last four are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    EXECUTED = "executed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can change it any more."""
        return self not in (CommandStatus.PENDING, CommandStatus.DELIVERED)


class TokenState(enum.StrEnum):
    """What a device token opens (contract, section 1)."""

    ACTIVE = "active"
    RESET_ONLY = "reset_only"
    REVOKED = "revoked"


class Radio(enum.StrEnum):
    """The link over which a device was seen."""

    WIFI = "wifi"
    CELLULAR = "4g"
    BLE = "ble"


class DeviceState(enum.StrEnum):
    """What the firmware says it is doing."""

    IDLE = "idle"
    RECORDING = "recording"
    SYNCING = "syncing"
    UPLOADING = "uploading"
    CHARGING = "charging"
    LOW_BATTERY = "lowBattery"
    STORAGE_FULL = "storageFull"
    ERROR = "error"


class Flag(enum.IntFlag):
    """Bits of a heartbeat's ``flags``."""

    CHARGING = 1
    LOW_BATTERY = 2
    STORAGE_FULL = 4
    WIFI = 8
    LTE = 16
    SYNC = 32
