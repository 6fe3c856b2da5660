"""``gateway webhooks``: where events are sent over HTTP, and what became of each delivery."""

from __future__ import annotations

from typing import Any, Final

import click

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, Place, at, with_gateway
from gateway.cli.devices import json_option, yes_option
from gateway.cli.options import SettingsCommand
from gateway.cli.param_types import DURATION
from gateway.core.clock import SECOND_MS

GROUP_EPILOG: Final = """\b
Examples:
  gateway webhooks create https://example.com/hook --event reset.completed --event reset.failed
  gateway webhooks test wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB
  gateway webhooks deliveries wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --status failed
"""
_COLUMNS: Final = {"ID": "id", "URL": "url", "EVENTS": "events", "ENABLED": "enabled", "CREATED": "created_at"}
_DELIVERY_COLUMNS: Final = {
    "ID": "id",
    "EVENT": "event_type",
    "STATUS": "status",
    "TRIES": "attempts",
    "ANSWER": "response_status",
    "NEXT TRY": "next_attempt_at",
    "ERROR": "error",
}
_WEBHOOK: Final = click.argument("webhook_id", metavar="WEBHOOK")
_EVENTS: Final = click.option(
    "--event",
    "events",
    multiple=True,
    metavar="TYPE",
    help="A type of event to send; again for more; none: every type.",
)


@click.group(name="webhooks", epilog=GROUP_EPILOG)
def webhooks_group() -> None:
    """Send events to other programs over HTTP."""


@webhooks_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway webhooks list --json")
@json_option
@with_gateway
def list_webhooks(place: Place, *, as_json: bool) -> None:
    """List the webhooks of the project."""
    _print_all(place.run(lambda api: _all(api, at("webhooks"), 0)), _COLUMNS, as_json=as_json)


@webhooks_group.command(
    cls=SettingsCommand, name="show", epilog="\b\nExample:\n  gateway webhooks show wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@_WEBHOOK
@json_option
@with_gateway
def show(place: Place, *, webhook_id: str, as_json: bool) -> None:
    """Show a webhook."""
    _print(place.run(lambda api: api.get(at("webhooks", webhook_id))), as_json=as_json)


@webhooks_group.command(
    cls=SettingsCommand,
    name="create",
    epilog="\b\nExample:\n  gateway webhooks create https://example.com/hook --event reset.completed",
)
@click.argument("target", metavar="TARGET")
@_EVENTS
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("--disabled", is_flag=True, help="Make it, and send nothing yet.")
@json_option
@with_gateway
def create(
    place: Place, *, target: str, events: tuple[str, ...], description: str | None, disabled: bool, as_json: bool
) -> None:
    """Make a webhook and show its secret once.

    TARGET is the URL that events are sent to.
    """
    body: dict[str, Any] = {"url": target, "enabled": not disabled}
    body |= {"events": list(events)} if events else {}
    body |= {"description": description} if description else {}
    _print(place.run(lambda api: api.post(at("webhooks"), body)), as_json=as_json)
    output.note("Bring the secret to the receiver now: it is not shown again. It checks signatures with it.")


@webhooks_group.command(
    cls=SettingsCommand,
    name="set",
    epilog="\b\nExample:\n  gateway webhooks set wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --disable",
)
@_WEBHOOK
@click.option("--target", metavar="URL", help="Where events go from now on.")
@_EVENTS
@click.option("--description", metavar="TEXT", help="What it is for; '' clears it.")
@click.option("--enable/--disable", "enabled", default=None, help="Send events, or stop sending them.")
@json_option
@with_gateway
def set_webhook(place: Place, *, webhook_id: str, as_json: bool, **given: Any) -> None:
    """Change a webhook.

    What is not named stays as it is.
    """
    body: dict[str, Any] = {"url": given["target"], "enabled": given["enabled"]}
    body = {field: value for field, value in body.items() if value is not None}
    body |= {"events": list(given["events"])} if given["events"] else {}
    body |= {"description": given["description"] or None} if given["description"] is not None else {}
    if not body:
        raise click.UsageError("Say what to change: --target, --event, --description, --enable or --disable.")
    _print(place.run(lambda api: api.patch(at("webhooks", webhook_id), body)), as_json=as_json)


@webhooks_group.command(
    cls=SettingsCommand,
    name="rotate",
    epilog="""\b
Examples:
  gateway webhooks rotate wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --overlap 2h
  gateway webhooks rotate wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --end-overlap
""",
)
@_WEBHOOK
@click.option(
    "--overlap",
    type=DURATION,
    metavar="TIME",
    default="24h",
    show_default=True,
    help="The old one signs, too, so long.",
)
@click.option("--end-overlap", is_flag=True, help="Make no new secret; the one before signs nothing from now on.")
@json_option
@with_gateway
def rotate(place: Place, *, webhook_id: str, overlap: int, end_overlap: bool, as_json: bool) -> None:
    """Give a webhook a new secret, shown once.

    Both secrets sign for a while, so the receiver can change over without a gap.
    """
    if end_overlap:
        _print(place.run(lambda api: api.delete(at("webhooks", webhook_id, "previous-secret"))), as_json=as_json)
        return
    body = {"overlap_seconds": overlap // SECOND_MS}
    _print(place.run(lambda api: api.post(at("webhooks", webhook_id, "rotate"), body)), as_json=as_json)
    output.note("Bring the secret to the receiver now: it is not shown again. It checks signatures with it.")


@webhooks_group.command(
    cls=SettingsCommand, name="delete", epilog="\b\nExample:\n  gateway webhooks delete wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@_WEBHOOK
@yes_option
@json_option
@with_gateway
def delete(place: Place, *, webhook_id: str, yes: bool, as_json: bool) -> None:
    """Delete a webhook with its deliveries."""
    output.confirm(f"{webhook_id} and its deliveries will be deleted; what was not sent yet is not sent.", yes=yes)
    _print(place.run(lambda api: api.delete(at("webhooks", webhook_id))), as_json=as_json)


@webhooks_group.command(
    cls=SettingsCommand, name="test", epilog="\b\nExample:\n  gateway webhooks test wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"
)
@_WEBHOOK
@json_option
@with_gateway
def test(place: Place, *, webhook_id: str, as_json: bool) -> int:
    """Send a test event.

    What came back is shown; the exit code is 1 if it was no success.
    """
    result = place.run(lambda api: api.post(at("webhooks", webhook_id, "test")))
    _print(result, as_json=as_json)
    return int(not result["delivered"])


@webhooks_group.command(
    cls=SettingsCommand,
    name="deliveries",
    epilog="\b\nExample:\n  gateway webhooks deliveries wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB --status failed",
)
@_WEBHOOK
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), help="Only those.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@json_option
@with_gateway
def deliveries(place: Place, *, webhook_id: str, status: str | None, limit: int, as_json: bool) -> None:
    """List what was sent and what waits.

    The newest events first.
    """
    found = place.run(lambda api: _all(api, at("webhooks", webhook_id, "deliveries"), limit, status=status))
    _print_all(found, _DELIVERY_COLUMNS, as_json=as_json)


@webhooks_group.command(
    cls=SettingsCommand,
    name="replay",
    epilog="\b\nExample:\n  gateway webhooks replay wh_01JD3M5QZ8V9T2R4W6X7Y8Z9AB dlv_01JD3N0A1B2C3D4E5F6G7H8J9N",
)
@_WEBHOOK
@click.argument("delivery_id", metavar="DELIVERY")
@json_option
@with_gateway
def replay(place: Place, *, webhook_id: str, delivery_id: str, as_json: bool) -> None:
    """Send a delivery again, at once."""
    path = at("webhooks", webhook_id, "deliveries", delivery_id, "replay")
    _print(place.run(lambda api: api.post(path)), as_json=as_json)


async def _all(api: ApiClient, path: str, limit: int, **query: str | None) -> list[Json]:
    found: list[Json] = []
    cursor, more = None, True
    while more and (not limit or len(found) < limit):
        page = await api.get(path, **query, limit=PAGE, cursor=cursor)
        found += page["data"]
        cursor, more = page["next_cursor"], page["has_more"]
    return found[: limit or None]


def _print(document: Json, *, as_json: bool) -> None:
    if as_json:
        output.as_json(document)
    else:
        output.details(document)


def _print_all(found: list[Json], columns: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        output.as_json(found)
        return
    output.table(list(columns), ([_cell(each[field]) for field in columns.values()] for each in found))


def _cell(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
