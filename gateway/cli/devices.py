"""``gateway devices``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output, presence, reset_status
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.device_lookup import EXPLAINED, device_argument, on_device
from gateway.cli.lazy_loading import Commands
from gateway.cli.options import SettingsCommand
from gateway.cli.suggestions import again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_IN_A_PAGE: Final = 1_000
Filters = Mapping[str, str | list[str] | None]
"""Parameters of the list; those that are None are left out."""
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
    "TAGS": "tags",
}
_NOT_SYNCED: Final = (
    "The broker does not know the new password yet: no gateway runs here, or it is behind. Until it does, connects are "
    "refused."
)
GROUP_EPILOG: Final = f"""\b
Examples:
  gateway devices list --status bound --tag pilot
  gateway devices reset dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB
  gateway devices show BP-000123

{EXPLAINED}

\b
Where it works, in this order:
  --url or GATEWAY_URL   over HTTP, with the API key in GATEWAY_API_KEY
  GATEWAY_API_KEY        over HTTP, at the gateway that runs on the data directory
  neither                on the data directory itself, whether a gateway runs there or not
"""


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")(function)


def tag_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``--tag``."""
    text = "Only devices with this tag; repeat it for several: all must match."
    return click.option("--tag", multiple=True, metavar="TAG", help=text)(function)


def yes_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do it without asking.")(function)


@click.group(
    name="devices",
    epilog=GROUP_EPILOG,
    commands=Commands(
        {
            "set": "gateway.cli.device_set:set_device",
            "tag": "gateway.cli.device_tag:tag",
            "reset": "gateway.cli.device_reset:reset",
            "heartbeats": "gateway.cli.device_heartbeats:heartbeats",
            "bulk-reset": "gateway.cli.bulk_reset:bulk_reset",
            "cancel-resets": "gateway.cli.cancel_resets:cancel_resets",
        }
    ),
)
def devices_group() -> None:
    """Register, change, tag and reset devices."""


@devices_group.command(
    cls=SettingsCommand,
    name="list",
    epilog="\b\nExamples:\n  gateway devices list\n  gateway devices list --connection offline --json | jq -r '.[].id'",
)
@click.option("--status", type=click.Choice(["bound", "unbound"]), help="Only those.")
@click.option("--connection", type=click.Choice(["online", "offline"]), help="Only those.")
@click.option("--seen/--never-seen", default=None, help="Only those that were ever heard, or that never were.")
@click.option(
    "--condition",
    type=click.Choice(["low_battery", "storage_full", "reset_pending"]),
    help="Only those that stats counts as such.",
)
@click.option(
    "--search",
    metavar="TEXT",
    help="Only those with this text in id, serial number, name, tags or end user; one or two characters at the "
    "beginning of serial number, name or a tag.",
)
@click.option("--model", metavar="MODEL", help="Only this model.")
@tag_option
@click.option("--serial-number", metavar="SERIAL", help="Only the one with this serial number.")
@click.option("--end-user", "end_user_id", metavar="ID", help="Only those bound to this end user.")
@click.option(
    "--sort",
    type=click.Choice(["created_at", "updated_at", "serial_number", "name"]),
    help="What to sort by.  [default: created_at]",
)
@click.option(
    "--order", type=click.Choice(["asc", "desc"]), help="Direction.  [default: desc for times, asc for the others]"
)
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def list_devices(
    place: Place, *, limit: int, as_json: bool, seen: bool | None, tag: tuple[str, ...], **filters: str | None
) -> None:
    """List devices.

    The newest first unless told otherwise.
    """
    wanted = {**filters, "seen": None if seen is None else str(seen).lower(), "tag": list(tag) or None}
    (found, more), why = place.run(lambda api: _listed(api, limit, wanted))
    if as_json:
        output.as_json(found)
        return
    shown = (presence.as_known(device, why) for device in found)
    rows = (device | {"tags": ", ".join(device["tags"])} for device in shown)
    output.table(list(_COLUMNS), ([device[field] for field in _COLUMNS.values()] for device in rows))
    if more:
        output.note(f"There are more than {limit}: --limit 0 lists all.")
    presence.warn(why if found else None)


async def _listed(api: ApiClient, limit: int, wanted: Filters) -> tuple[tuple[list[Json], bool], str | None]:
    return await devices(api, limit, wanted), await presence.doubt(api)


async def devices(api: ApiClient, limit: int, filters: Filters) -> tuple[list[Json], bool]:
    """Return at most so many devices (0: all) that pass the filters, newest first, and whether there are more."""
    found: list[Json] = []
    cursor: str | None = None
    while True:
        wanted = min(limit - len(found), MOST_IN_A_PAGE) if limit else MOST_IN_A_PAGE
        page = await api.get(at("devices"), limit=wanted, cursor=cursor, **filters)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None or len(found) == limit:
            return found, cursor is not None


@devices_group.command(cls=SettingsCommand, name="show", epilog="\b\nExample:\n  gateway devices show dev_01JD3M5Q")
@device_argument
@json_option
@with_gateway
def show(place: Place, *, device: str, as_json: bool) -> None:
    """Show all that is known of a device.

    One that said that its reset failed is told of, and one whose reset waits for WiFi or cellular.
    """
    facts, state, why = on_device(place, device, _known)
    reset = on_device(place, facts["id"], reset_status.newest)
    if as_json:
        output.as_json(facts)
    else:
        output.details({**presence.as_known(facts, why), "last_seen_by": state["last_seen_by"]})
        presence.warn(why)
    reset_status.warn_failed(facts, reset)
    reset_status.warn_behind_bluetooth(state, reset)


async def _known(api: ApiClient, device_id: str) -> tuple[Json, Json, str | None]:
    """Return a device, its health, and why its presence is unknown, or None."""
    path = at("devices", device_id)
    return await api.get(path), await api.get(f"{path}/state"), await presence.doubt(api)


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
def bind(place: Place, *, device: str, end_user_id: str, supersede_reset: bool, as_json: bool) -> None:
    """Bind a device; show its secrets once."""
    body = {"end_user_id": end_user_id, "supersede_reset": supersede_reset}
    answer = on_device(
        place, device, lambda api, device_id: api.send("POST", at("devices", device_id, "bind"), body=body)
    )
    bound: Json = answer.json()
    if as_json:
        output.as_json(bound)
    else:
        facts = {field: bound[field] for field in ("id", "end_user_id", "binding_generation", "device_token")}
        access = {"mqtt": _mqtt(bound["mqtt"]), "mqtt_password": bound["mqtt"]["password"]}
        output.details({**facts, **access, "grant_key": bound["grant_key"]})
        output.note("Bring all of this to the device now: token and MQTT password are not shown again.")
    if "X-Broker-Synced" in answer.headers:
        output.note(_NOT_SYNCED)


def _mqtt(access: Json) -> str:
    return f"{'mqtts' if access['tls'] else 'mqtt'}://{access['username']}@{access['host']}:{access['port']}"


@devices_group.command(cls=SettingsCommand, name="unbind", epilog="\b\nExample:\n  gateway devices unbind dev_01JD3M5Q")
@device_argument
@json_option
@with_gateway
def unbind(place: Place, *, device: str, as_json: bool) -> None:
    """Unbind a device without wiping it.

    Its token is revoked.
    """
    unbound = on_device(place, device, lambda api, device_id: api.post(at("devices", device_id, "unbind")))
    _print(unbound, as_json=as_json)


@devices_group.command(cls=SettingsCommand, name="delete", epilog="\b\nExample:\n  gateway devices delete dev_01JD3M5Q")
@device_argument
@yes_option
@json_option
@with_gateway
def delete(place: Place, *, device: str, yes: bool, as_json: bool) -> None:
    """Delete a device without wiping it.

    It is unbound and its token revoked; the record is kept and can be restored.
    """
    meant = ask(place, device, yes=yes, what="will be unbound, not wiped, and be gone from every list")
    facts = on_device(place, meant, lambda api, device_id: api.delete(at("devices", device_id)))
    _print(facts if as_json else {**summary(facts), "deleted_at": facts["deleted_at"]}, as_json=as_json)
    output.note(f"To bring it back: {again('devices', 'restore', facts['id'])}")


@devices_group.command(
    cls=SettingsCommand, name="restore", epilog="\b\nExample:\n  gateway devices restore dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@device_argument
@json_option
@with_gateway
def restore(place: Place, *, device: str, as_json: bool) -> None:
    """Bring a deleted device back, unbound."""

    def work(api: ApiClient, device_id: str) -> Awaitable[Json]:
        return api.post(at("devices", device_id, "restore"))

    _print(on_device(place, device, work, deleted=True), as_json=as_json)


def summary(device: Json) -> Json:
    """Return what is printed of a device that was changed."""
    return {field: device[field] for field in ("id", "serial_number", "name", "status", "binding_generation")}


def ask(
    place: Place,
    wanted: str,
    *,
    yes: bool,
    what: str,
    more: Callable[[Json, str | None], str] = lambda state, why: "",  # noqa: ARG005 - most have no more to say
) -> str:
    """Show the device before anything is done, since ids are easily confused; return the one that was agreed to."""
    if yes:
        return wanted
    known, state, why = on_device(place, wanted, _known)
    device = presence.as_known(known, why)
    whose = f"bound to {device['end_user_id']}" if device["end_user_id"] else "unbound"
    name = f" '{output.cell(device['name'])}'" if device["name"] else ""
    serial = output.cell(device["serial_number"])
    question = f"{device['id']}{name} (serial {serial}, {whose}, connection {device['connection']}) {what}."
    output.confirm(" ".join(filter(None, (question, more(state, why)))), yes=yes)
    return str(device["id"])
