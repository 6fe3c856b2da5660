"""``gateway watch``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import event_follow, output, presence
from gateway.cli.api import ApiClient, Json, at, with_gateway
from gateway.cli.device_lookup import EXPLAINED, device_argument, on_device
from gateway.cli.devices import json_option
from gateway.cli.fleet_view import ago, percent, told, used_percent
from gateway.cli.options import SettingsCommand
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.cli.api import Place

HEARTBEAT: Final = "heartbeat"
_LOOK_SECONDS: Final = 2.0
_MOST: Final = 100


@click.command(
    cls=SettingsCommand,
    name="watch",
    epilog="\b\nExamples:\n  gateway watch dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB\n"
    f"  gateway watch BP-000123 --no-heartbeats --json | jq .type\n\n{EXPLAINED}",
)
@device_argument
@click.option("--limit", type=click.IntRange(0), default=5, show_default=True, help="Begin with so many events.")
@click.option("--heartbeats/--no-heartbeats", default=True, show_default=True, help="Show its heartbeats too.")
@json_option
@with_gateway
def watch(place: Place, *, device: str, limit: int, heartbeats: bool, as_json: bool) -> None:
    """Follow one device as it lives.

    Until Ctrl-C. Its events come from the event stream, its heartbeats from its history. With --json each is a JSON
    document on its own line; a heartbeat looks like an event of the type "heartbeat".
    """

    def work(api: ApiClient, device_id: str) -> Awaitable[None]:
        return _watch(api, device_id, limit, heartbeats=heartbeats, as_json=as_json)

    on_device(place, device, work)


async def _watch(api: ApiClient, device_id: str, limit: int, *, heartbeats: bool, as_json: bool) -> None:
    device = await api.get(at("devices", device_id))
    known = await event_follow.newest(api, max(limit, 1), None, device_id=device_id)
    if not as_json:
        why = await presence.doubt(api)
        click.echo(_summary(presence.as_known(device, why)))
        presence.warn(why)
    for event in known[-limit:] if limit else []:
        _print(event, as_json=as_json)
    async with asyncio.TaskGroup() as group:
        if heartbeats:
            group.create_task(_beats(api, device_id, as_json=as_json), name="heartbeats")
        async for event in event_follow.follow(api, known[-1]["id"] if known else None, {"device_id": device_id}):
            _print(event, as_json=as_json)


def _summary(device: Json) -> str:
    words = [
        *filter(None, (device["name"], device["serial_number"], device["id"])),
        device["connection"],
        *_vitals(device),
        f"heard {ago(device['last_heartbeat_at'])}",
        f"bound to {device['end_user_id']}" if device["end_user_id"] else "unbound",
    ]
    return click.style("  ".join(map(output.cell, words)), bold=True)


def _print(event: Json, *, as_json: bool) -> None:
    line = _beat if event["type"] == HEARTBEAT else _event
    click.echo(json.dumps(event) if as_json else line(event))
    sys.stdout.flush()  # through a pipe too each is there at once


def _event(event: Json) -> str:
    return told(event, of=event["data"]["device_id"])


def _beat(event: Json) -> str:
    said = event["data"]
    links = said["connection_type"] or []
    return "  ".join(map(output.cell, (event["created_at"], HEARTBEAT, *_vitals(said), *links)))


def _vitals(said: Json) -> list[str]:
    """Return the device's health in words."""
    used, signal = used_percent(said), said["signal_strength_dbm"]
    known = {
        "battery": percent(said["battery_percent"]),
        "storage": None if used is None else f"{percent(used)} of {said['storage_total_mb']} MB",
        "signal": None if signal is None else f"{signal} dBm",
    }
    return [f"{name} {value}" for name, value in known.items() if value is not None]


async def _beats(api: ApiClient, device_id: str, *, as_json: bool) -> None:
    """Poll for new heartbeats; those of the last poll are not printed twice."""
    path = at("devices", device_id, "heartbeats")
    newest = (await api.get(path, limit=1))["data"]
    shown = newest
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            since = newest[0]["received_at"] if newest else None
            found: list[Json] = (await api.get(path, limit=_MOST, since=since))["data"]
        except GatewayError as error:
            if not event_follow.passes(error) and error.code != "not_found":  # deleted, as an event says
                raise
            continue
        for beat in reversed([each for each in found if each not in shown]):
            _print(_as_event(device_id, beat), as_json=as_json)
        newest, shown = found[:1] or newest, found or shown


def _as_event(device_id: str, beat: Json) -> Json:
    said = {name: value for name, value in beat.items() if name != "received_at"}
    return {"type": HEARTBEAT, "created_at": beat["received_at"], "data": {"device_id": device_id, **said}}
