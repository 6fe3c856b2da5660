"""Warnings about a device's reset: whether it can be fetched at all, and when the last one failed."""

from __future__ import annotations

from gateway.cli import output, presence
from gateway.cli.api import ApiClient, Json, at
from gateway.cli.suggestions import again
from gateway.core.command_types import CommandType
from gateway.models.states import CommandStatus


async def newest(api: ApiClient, device_id: str) -> Json | None:
    """Return the newest reset of a device, or None."""
    commands = await api.get(at("devices", device_id, "commands"), type=CommandType.FACTORY_RESET, limit=1)
    return next(iter(commands["data"]), None)


def may_be_fetched(device: Json, command: Json) -> bool:
    """Return whether a token can fetch it: without one, the command has the device's own generation (section 1)."""
    return bool(command["binding_generation"] != device["binding_generation"])


def warn_unfetched(device_id: str, command_id: str) -> None:
    """Warn that nothing can fetch this reset."""
    output.note(
        "warning: no token of this device is good any more, so nothing can fetch this reset, and the device is not "
        "wiped by it. If the device was reset by hand, bind it anew, which cancels this one:\n"
        f"  {again('devices', 'bind', device_id, 'END_USER', '--supersede-reset')}\n"
        f"or take it back: {again('commands', 'cancel', device_id, command_id)}"
    )


def warn_behind_bluetooth(state: Json, command: Json | None) -> None:
    """Warn that this reset waits for another link than the device's last one."""
    if command is not None and command["status"] == CommandStatus.PENDING and presence.is_behind_bluetooth(state):
        output.note(f"warning: {presence.BLUETOOTH_ONLY}")


def warn_failed(device: Json, command: Json | None) -> None:
    """Warn that the last reset failed and the device was not bound since: it still waits for one.

    See section 4 of the contract.
    """
    if device["status"] != "unbound" or command is None or command["status"] != CommandStatus.FAILED:
        return
    error = command["error"] or {}
    output.note(
        f"warning: the device said that its last reset failed ({output.cell(error.get('code'))}: "
        f"{output.cell(error.get('message'))}), so it was not wiped, and nothing tells it to be. Its token opens its "
        f"reset alone. Ask for the reset again: {again('devices', 'reset', device['id'])}"
    )
