"""Wait until a command is final, with a report of each step: ``devices reset --wait``, ``commands send --wait``."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, RefusedError, at
from gateway.cli.param_types import DURATION
from gateway.models.states import CommandStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STILL_OPEN: Final = 8
"""Exit code: the command was not final in time. It stays open, and nothing was taken back."""
FAILED: Final = 1
_POLL_SECONDS: Final = 0.5
_LIMITED_SECONDS: Final = 5.0
_OPEN: Final = (CommandStatus.PENDING, CommandStatus.DELIVERED)
_STEPS: Final = {
    CommandStatus.PENDING: "waiting for the device to take it",
    CommandStatus.DELIVERED: "the device has it",
    CommandStatus.EXECUTED: "the device carried it out",
    CommandStatus.FAILED: "the device says that it failed",
    CommandStatus.EXPIRED: "it expired before the device took it",
    CommandStatus.CANCELLED: "it was cancelled",
}


def wait_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``--wait`` and ``--timeout``."""
    click.option(
        "--timeout", "timeout_ms", type=DURATION, metavar="DURATION",
        help="With --wait: how long, such as 90s or 10m; none: until it is final, or Ctrl-C.",
    )(function)  # fmt: skip
    return click.option("--wait", is_flag=True, help="Wait until the device has done it, and say each step.")(function)


def wait_for(place: Place, command: Json, timeout_ms: int | None) -> Json:
    """Return the command once it is final, or as it is when the time is up; each new status is said on stderr."""
    device_id, command_id = command["device_id"], command["id"]
    return place.run(lambda api: _wait_until_final(api, device_id, command_id, timeout_ms), device=device_id)


async def _wait_until_final(api: ApiClient, device_id: str, command_id: str, timeout_ms: int | None) -> Json:
    until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
    said = None
    while True:
        command = await _read(api, device_id, command_id)
        status = None if command is None else CommandStatus(command["status"])
        if status is not None and status is not said:
            said = status
            output.note(f"{status.value}: {_STEPS[status]}")
        if command is not None and (status not in _OPEN or _is_over(until)):
            return command
        await asyncio.sleep(_POLL_SECONDS if command is not None else _LIMITED_SECONDS)


async def _read(api: ApiClient, device_id: str, command_id: str) -> Json | None:
    """Return the command, or None while the rate limit of the key forbids to ask."""
    try:
        return await api.get(at("devices", device_id, "commands", command_id))
    except RefusedError as error:
        if error.code != "rate_limit_exceeded":
            raise
        return None


def _is_over(until: float | None) -> bool:
    return until is not None and time.monotonic() >= until


def exit_code(command: Json) -> int:
    """Return 0 for an executed command, `STILL_OPEN` for an open one, `FAILED` for every other end."""
    status = CommandStatus(command["status"])
    if status in _OPEN:
        return STILL_OPEN
    return 0 if status is CommandStatus.EXECUTED else FAILED
