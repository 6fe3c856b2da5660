"""Types of commands. The access rules of every broker name them, so only this module lists them."""

from __future__ import annotations

import enum


class CommandType(enum.StrEnum):
    """A command that a device can get."""

    FACTORY_RESET = "factory_reset"
    START_RECORDING = "start_recording"
    STOP_RECORDING = "stop_recording"
    TRIGGER_UPLOAD = "trigger_upload"
    REBOOT = "reboot"
    SET_GRANT_KEY = "set_grant_key"
    """Made by the gateway alone: the device gets another signing key (:mod:`gateway.domain.grant_keys`)."""
