"""Look-up of a device by its id or by its serial number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from gateway.cli.api import PAGE, ApiClient, Place, at
from gateway.cli.completion_lookup import newest
from gateway.cli.suggestions import again
from gateway.core import ids, serial_numbers
from gateway.core.visible_text import escaped
from gateway.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
EXPLAINED: Final = "DEVICE is the id of a device or its serial number. What has the form of an id is taken for one."


class FoundDevice(click.ParamType[str]):
    """The id of a device, or its serial number; shells complete both."""

    name = "device"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the newest devices, with serial number and name for shells that show them."""
        del param
        found = newest(ctx, "devices")
        return [
            CompletionItem(each["id"], help=_help(each["serial_number"], each["name"]))
            for each in found
            if each["id"].startswith(incomplete)
        ] + [
            CompletionItem(each["serial_number"], help=_help(each["id"], each["name"]))
            for each in found
            if incomplete and each["serial_number"].startswith(incomplete)
        ]


def _help(*words: str | None) -> str:
    return escaped(" ".join(filter(None, words)))


DEVICE: Final = FoundDevice()


def device_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: the device that is meant, by its id or its serial number."""
    return click.argument("device", metavar="DEVICE", type=DEVICE)(function)


def on_device(place: Place, wanted: str, work: Callable[[ApiClient, str], Awaitable[T]], *, deleted: bool = False) -> T:
    """Do some work in the project of a device; it gets the device's id."""

    async def found(api: ApiClient) -> T:
        return await work(api, await device_id(api, wanted, deleted=deleted))

    return place.run(found, device=wanted)


async def device_id(api: ApiClient, wanted: str, *, deleted: bool = False) -> str:
    """The id of the device with this id or serial number; with ``deleted``, of one that was deleted too.

    Raises:
        NotFoundError: nothing has this serial number. (That nothing has an id is said where that is used.)
    """
    if ids.is_id(ids.DEVICE, wanted):
        return wanted
    listed = (await api.get(at("devices"), serial_number=wanted))["data"]
    listed.sort(key=lambda device: device["serial_number"] != wanted)
    found = listed[0]["id"] if listed else await _deleted(api, wanted) if deleted else None
    if found is None:
        raise NotFoundError(
            f"There is no device '{wanted[:80]}' in this project, neither by id nor by serial number. Look for it "
            f"('{again('devices', 'list', '--search', 'TEXT')}'), among the deleted ones too "
            f"('{again('events', 'tail', '--type', 'device.deleted')}')."
        )
    return str(found)


async def _deleted(api: ApiClient, serial_number: str) -> str | None:
    """Return the id of a deleted device, from the audit trail: no list has it any more.

    A device that was deleted longer ago is found by its id alone.
    """
    cursor, more, known = None, True, serial_numbers.forms(serial_number)
    while more:
        page = await api.get(at("events"), type="device.deleted", limit=PAGE, cursor=cursor)
        for event in page["data"]:
            if event["data"].get("serial_number") in known:
                return str(event["data"]["device_id"])
        cursor, more = page["next_cursor"], page["has_more"]
    return None
