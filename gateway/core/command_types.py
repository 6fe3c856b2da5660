"""What a device can be told to do. The access rules of every broker name these types, so they are listed here alone."""

from __future__ import annotations

import enum


class CommandType(enum.StrEnum):
    """What a device can be told to do."""

    FACTORY_RESET = "factory_reset"
    START_RECORDING = "start_recording"
    STOP_RECORDING = "stop_recording"
    TRIGGER_UPLOAD = "trigger_upload"
    REBOOT = "reboot"
