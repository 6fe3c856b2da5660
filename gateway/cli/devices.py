"""``gateway devices``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from gateway import model
from gateway.cli import output
from gateway.cli.api import PAGE, Api, Json, Place, at, with_gateway
from gateway.cli.lazy import Commands
from gateway.cli.options import SettingsCommand
from gateway.errors import GatewayError
from gateway.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable

_COLUMNS: Final = {
    "ID": "id",
    "SERIAL": "serial_number",
    "MODEL": "model",
    "STATUS": "status",
    "END USER": "end_user_id",
    "CONNECTION": "connection",
    "LAST HEARTBEAT": "last_heartbeat_at",
    "BATTERY": "battery_percent",
    "NAME": "name",
}
_NOT_SYNCED: Final = (
    "The broker does not know the new token yet: no gateway runs here, or it is behind. Until it does, connects are "
    "refused."
)
GROUP_EPILOG: Final = """\b
Examples:
  gateway devices list --status bound
  gateway devices reset dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB

\b
Where it works, in this order:
  --url or GATEWAY_URL   over HTTP, with the API key in GATEWAY_API_KEY
  GATEWAY_API_KEY        over HTTP, at the gateway that runs on the data directory
  neither                on the data directory itself, whether a gateway runs there or not
"""


class DeviceId(click.ParamType[str]):
    """The id of a device; shells complete it."""

    name = "device"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The newest devices, with serial number and name beside them where the shell shows that."""
        del param
        try:
            given = ctx.params
            loaded = load({"data_dir": given.get("data_dir")}, os.environ, given.get("config"))
            place = Place(loaded.settings, given.get("url"), given.get("project"), given.get("ca_file"))
            found = place.run(lambda api: api.get(at("devices"), limit=PAGE))["data"]
        except (GatewayError, click.ClickException):
            return []
        return [
            CompletionItem(each["id"], help=" ".join(filter(None, (each["serial_number"], each["name"]))))
            for each in found
            if each["id"].startswith(incomplete)
        ]


DEVICE: Final = DeviceId()


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")(function)


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do it without asking.")(function)


def device_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the device that is meant."""
    return click.argument("device_id", metavar="DEVICE", type=DEVICE)(function)


@click.group(
    name="devices",
    epilog=GROUP_EPILOG,
    commands=Commands({"cancel-resets": "gateway.cli.fleet:cancel_resets"}),
)
def devices_group() -> None:
    """Register, bind, reset and delete devices."""


@devices_group.command(
    cls=SettingsCommand,
    name="list",
    epilog="\b\nExamples:\n  gateway devices list\n  gateway devices list --connection offline --json | jq -r '.[].id'",
)
@click.option("--status", type=click.Choice(["bound", "unbound"]), help="Only those.")
@click.option("--connection", type=click.Choice(["online", "offline"]), help="Only those.")
@click.option(
    "--condition",
    type=click.Choice(["low_battery", "storage_full", "reset_pending"]),
    help="Only those that stats counts as such.",
)
@click.option("--search", metavar="TEXT", help="Only those with this text in id, serial number, name or end user.")
@click.option("--model", metavar="MODEL", help="Only this model.")
@click.option("--serial-number", metavar="SERIAL", help="Only the one with this serial number.")
@click.option("--end-user", "end_user_id", metavar="ID", help="Only those bound to this end user.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def list_devices(place: Place, *, limit: int, as_json: bool, **filters: str | None) -> None:
    """List devices, the newest first."""
    found, more = place.run(lambda api: devices(api, limit, filters))
    if as_json:
        output.as_json(found)
        return
    output.table(list(_COLUMNS), ([device[field] for field in _COLUMNS.values()] for device in found))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")


async def devices(api: Api, limit: int, filters: dict[str, str | None]) -> tuple[list[Json], bool]:
    """At most so many devices (0: all) that pass the filters, the newest first, and whether there are more."""
    found: dict[str, Json] = {}  # by id: while pages are read, new devices push known ones onto the next page
    offset, more = 0, True
    while more and (not limit or len(found) < limit):
        page = await api.get(at("devices"), limit=PAGE, offset=offset, **filters)
        found |= {device["id"]: device for device in page["data"]}
        offset, more = offset + PAGE, page["has_more"]
    listed = list(found.values())
    return listed[: limit or None], more or bool(limit and len(listed) > limit)


@devices_group.command(cls=SettingsCommand, name="show", epilog="\b\nExample:\n  gateway devices show dev_01JD3M5Q")
@device_argument
@json_option
@with_gateway
def show(place: Place, *, device_id: str, as_json: bool) -> None:
    """Show all that is known of a device."""
    _print(place.run(lambda api: api.get(at("devices", device_id)), device_id=device_id), as_json=as_json)


def _print(device: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(device)
    else:
        output.details(device)


@devices_group.command(
    cls=SettingsCommand,
    name="register",
    epilog="\b\nExample:\n  gateway devices register BP-000123 --name 'Ward 3, bed 2'",
)
@click.argument("serial_number", metavar="SERIAL")
@click.option("--model", metavar="MODEL", help="Its model; none: the first of the configured ones.")
@click.option("--name", metavar="NAME", help="What people call it.")
@json_option
@with_gateway
def register(place: Place, *, serial_number: str, model: str | None, name: str | None, as_json: bool) -> None:
    """Register a device by its serial number.

    One that is registered already is shown, and nothing of it is changed.
    """
    body = {"serial_number": serial_number, "model": model, "name": name}
    given = {field: value for field, value in body.items() if value is not None}
    _print(place.run(lambda api: api.post(at("devices"), given)), as_json=as_json)


@devices_group.command(
    cls=SettingsCommand,
    name="bind",
    epilog="\b\nExample:\n  gateway devices bind dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB eu_42",
)
@device_argument
@click.argument("end_user_id", metavar="END_USER")
@click.option("--supersede-reset", is_flag=True, help="Cancel an open reset, if the device was reset by hand.")
@json_option
@with_gateway
def bind(place: Place, *, device_id: str, end_user_id: str, supersede_reset: bool, as_json: bool) -> None:
    """Bind a device and show its token once."""
    body = {"end_user_id": end_user_id, "supersede_reset": supersede_reset}
    answer = place.run(lambda api: api.send("POST", at("devices", device_id, "bind"), json=body), device_id=device_id)
    bound: Json = answer.json()
    if as_json:
        output.as_json(bound)
    else:
        facts = {field: bound[field] for field in ("id", "end_user_id", "binding_generation", "device_token")}
        output.details({**facts, "mqtt": _mqtt(bound["mqtt"]), "grant_key": bound["grant_key"]})
        output.note("Bring device_token, mqtt and grant_key to the device now: the token is not shown again.")
    if "X-Broker-Synced" in answer.headers:
        output.note(_NOT_SYNCED)


def _mqtt(access: Json) -> str:
    return f"{'mqtts' if access['tls'] else 'mqtt'}://{access['username']}@{access['host']}:{access['port']}"


@devices_group.command(cls=SettingsCommand, name="unbind", epilog="\b\nExample:\n  gateway devices unbind dev_01JD3M5Q")
@device_argument
@json_option
@with_gateway
def unbind(place: Place, *, device_id: str, as_json: bool) -> None:
    """Unbind a device without wiping it.

    Its token is revoked.
    """
    _print(place.run(lambda api: api.post(at("devices", device_id, "unbind")), device_id=device_id), as_json=as_json)


@devices_group.command(
    cls=SettingsCommand, name="reset", epilog="\b\nExample:\n  gateway devices reset dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@device_argument
@yes_option
@json_option
@with_gateway
def reset(place: Place, *, device_id: str, yes: bool, as_json: bool) -> None:
    """Reset a device to factory settings.

    It is unbound at once, and wipes itself when it gets the command, however late that is.
    """
    _ask(place, device_id, yes=yes, what="will be unbound and wiped")
    device, command = place.run(lambda api: _reset(api, device_id), device_id=device_id)
    if as_json:
        output.as_json({**device, "command": command})
        return
    output.details(
        {**_summary(device), "command": command and command["id"], "command status": command and command["status"]}
    )
    output.note(f"How far it is: gateway commands list {device_id}")


async def _reset(api: Api, device_id: str) -> tuple[Json, Json | None]:
    device = await api.post(at("devices", device_id, "reset"))
    newest = await api.get(at("devices", device_id, "commands"), limit=PAGE)
    resets = [each for each in newest["data"] if each["type"] == model.CommandType.FACTORY_RESET]
    return device, next(iter(resets), None)


@devices_group.command(cls=SettingsCommand, name="delete", epilog="\b\nExample:\n  gateway devices delete dev_01JD3M5Q")
@device_argument
@yes_option
@json_option
@with_gateway
def delete(place: Place, *, device_id: str, yes: bool, as_json: bool) -> None:
    """Delete a device without wiping it.

    It is unbound and its token revoked; the record is kept and can be restored.
    """
    _ask(place, device_id, yes=yes, what="will be unbound, not wiped, and be gone from every list")
    device = place.run(lambda api: api.delete(at("devices", device_id)), device_id=device_id)
    _print(device if as_json else {**_summary(device), "deleted_at": device["deleted_at"]}, as_json=as_json)
    output.note(f"To bring it back: gateway devices restore {device_id}")


@devices_group.command(
    cls=SettingsCommand, name="restore", epilog="\b\nExample:\n  gateway devices restore dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@device_argument
@json_option
@with_gateway
def restore(place: Place, *, device_id: str, as_json: bool) -> None:
    """Bring a deleted device back, unbound."""
    _print(place.run(lambda api: api.post(at("devices", device_id, "restore")), device_id=device_id), as_json=as_json)


def _summary(device: Json) -> Json:
    return {field: device[field] for field in ("id", "serial_number", "name", "status", "binding_generation")}


def _ask(place: Place, device_id: str, *, yes: bool, what: str) -> None:
    """Show who is meant before it is done; an id alone is soon mistaken for another."""
    if yes:
        return
    device = place.run(lambda api: api.get(at("devices", device_id)), device_id=device_id)
    whose = f"bound to {device['end_user_id']}" if device["end_user_id"] else "unbound"
    name = f" '{output.cell(device['name'])}'" if device["name"] else ""
    serial = output.cell(device["serial_number"])
    output.confirm(f"{device['id']}{name} (serial {serial}, {whose}, {device['connection']}) {what}.", yes=yes)
