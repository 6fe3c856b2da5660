"""``gateway commands``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, Place, at, with_gateway
from gateway.cli.command_wait import exit_code, wait_for, wait_options
from gateway.cli.device_lookup import EXPLAINED, device_argument, on_device
from gateway.cli.devices import json_option
from gateway.cli.key_values import EXPLAINED as KEY_VALUE_EXPLAINED
from gateway.cli.key_values import KEY_VALUE
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION
from gateway.core.clock import DAY_MS, SECOND_MS
from gateway.core.command_types import CommandType
from gateway.models.states import CommandStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable

_COLUMNS: Final = {
    "ID": "id",
    "TYPE": "type",
    "STATUS": "status",
    "CREATED": "created_at",
    "DELIVERED": "delivered_at",
    "EXECUTED": "executed_at",
    "EXPIRES": "expires_at",
    "ERROR": "error",
}
_SENDABLE: Final = [
    each.value for each in CommandType if each not in (CommandType.FACTORY_RESET, CommandType.SET_GRANT_KEY)
]
GROUP_EPILOG: Final = f"""\b
Example:
  gateway commands list dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB

{EXPLAINED}
"""


@click.group(name="commands", epilog=GROUP_EPILOG)
def commands_group() -> None:
    """Send, follow and cancel commands."""


@commands_group.command(
    cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway commands list dev_01JD3M5Q --status pending"
)
@device_argument
@click.option("--status", type=click.Choice([each.value for each in CommandStatus]), help="Only those.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def list_commands(place: Place, *, device: str, status: str | None, limit: int, as_json: bool) -> None:
    """List a device's commands, newest first."""
    found, more = on_device(place, device, lambda api, device_id: _commands(api, device_id, status, limit))
    if as_json:
        output.as_json(found)
        return
    output.table(list(_COLUMNS), ([_value(each, field) for field in _COLUMNS.values()] for each in found))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


async def _commands(api: ApiClient, device_id: str, status: str | None, limit: int) -> tuple[list[Json], bool]:
    found: list[Json] = []
    cursor, more = None, True
    while more and (not limit or len(found) < limit):
        page = await api.get(at("devices", device_id, "commands"), status=status, limit=PAGE, cursor=cursor)
        found += page["data"]
        cursor, more = page["next_cursor"], page["has_more"]
    return found[: limit or None], more or bool(limit and len(found) > limit)


def _value(command: Json, field: str) -> Any:
    error = command["error"]
    return error["code"] if field == "error" and error else command[field]


@commands_group.command(
    cls=SettingsCommand, name="show", epilog="\b\nExample:\n  gateway commands show dev_01JD3M5Q cmd_01JD3N0A"
)
@device_argument
@click.argument("command_id", metavar="COMMAND")
@json_option
@with_gateway
def show(place: Place, *, device: str, command_id: str, as_json: bool) -> None:
    """Show a command and how far it is."""
    shown = on_device(place, device, lambda api, device_id: api.get(at("devices", device_id, "commands", command_id)))
    _print(shown, as_json=as_json)


@commands_group.command(
    cls=SettingsCommand,
    name="send",
    epilog="\b\nExamples:\n  gateway commands send BP-000123 reboot --wait\n"
    f"  gateway commands send BP-000123 trigger_upload --param network=wifi --ttl 10m\n\n{KEY_VALUE_EXPLAINED}",
)
@device_argument
@click.argument("kind", metavar="TYPE", type=click.Choice(_SENDABLE))
@click.option(
    "--param", "params", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="A parameter; again for more."
)
@click.option(
    "--ttl",
    "ttl_ms",
    type=DURATION,
    metavar="DURATION",
    help="How long it may wait for the device, a day at most.  [default: 5m]",
)
@wait_options
@json_option
@with_gateway
def send(
    place: Place,
    *,
    device: str,
    kind: str,
    params: tuple[tuple[str, Any], ...],
    ttl_ms: int | None,
    wait: bool,
    timeout_ms: int | None,
    as_json: bool,
) -> int:
    """Send a command to a device.

    A reset is 'gateway devices reset'. With --wait the exit code is 0 once it was carried
    out, 1 if it ended otherwise, and 8 if it is still open.
    """
    body: Json = {"type": kind}
    body |= {"params": dict(params)} if params else {}
    if ttl_ms is not None:
        if ttl_ms < SECOND_MS or ttl_ms % SECOND_MS:
            raise click.UsageError("--ttl should be whole seconds, at least 1s.")
        if ttl_ms > DAY_MS:
            raise click.UsageError(
                "--ttl should be a day (1d) at most: send the command again if the device is away longer."
            )
        body["ttl_seconds"] = ttl_ms // SECOND_MS
    command = on_device(place, device, lambda api, device_id: api.post(at("devices", device_id, "commands"), body))
    if wait:
        command = wait_for(place, command, timeout_ms)
    _print(command, as_json=as_json)
    return exit_code(command) if wait else 0


@commands_group.command(
    cls=SettingsCommand, name="cancel", epilog="\b\nExample:\n  gateway commands cancel dev_01JD3M5Q cmd_01JD3N0A"
)
@device_argument
@click.argument("command_id", metavar="COMMAND")
@json_option
@with_gateway
def cancel(place: Place, *, device: str, command_id: str, as_json: bool) -> None:
    """Cancel a command that is still open.

    A factory reset can be cancelled until the device has said that it has it. What was
    published is cancelled only once the gateway has read what the broker holds: with the
    broker away, or the gateway stopped, nothing is cancelled.
    """

    def work(api: ApiClient, device_id: str) -> Awaitable[Json]:
        return api.post(at("devices", device_id, "commands", command_id, "cancel"))

    _print(on_device(place, device, work), as_json=as_json)


def _print(command: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(command)
    else:
        output.details({name: value for name, value in command.items() if name != "grant_token"})
