"""``gateway devices set``: change a device's name, firmware version, metadata and settings."""

from __future__ import annotations

from typing import Any, Final

import click

from gateway.cli import output
from gateway.cli.api import Place, at, with_gateway
from gateway.cli.device_lookup import device_argument, on_device
from gateway.cli.devices import json_option
from gateway.cli.key_values import EXPLAINED, KEY_VALUE, nested
from gateway.cli.options import SettingsCommand

EPILOG: Final = f"""\b
Examples:
  gateway devices set BP-000123 --name 'Ward 3, bed 2'
  gateway devices set BP-000123 --metadata room=3b --metadata returned=null
  gateway devices set BP-000123 --setting power.auto_sleep_minutes=20 --setting upload.off_peak_hours=null

{EXPLAINED}
"""


@click.command(cls=SettingsCommand, name="set", epilog=EPILOG)
@device_argument
@click.option("--name", metavar="NAME", help="What people call it; '' clears it.")
@click.option("--firmware-version", metavar="VERSION", help="Until the device says another; '' clears it.")
@click.option(
    "--metadata", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Set a key of its metadata; null removes it."
)
@click.option(
    "--setting", "settings", type=KEY_VALUE, multiple=True, metavar="PATH=VALUE",
    help="Set one of its settings, by its path such as audio.bitrate_kbps.",
)  # fmt: skip
@json_option
@with_gateway
def set_device(
    place: Place,
    *,
    device: str,
    name: str | None,
    firmware_version: str | None,
    metadata: tuple[tuple[str, Any], ...],
    settings: tuple[tuple[str, Any], ...],
    as_json: bool,
) -> None:
    """Change what is known of a device.

    What is not named stays as it is. A setting that is not allowed is refused, and nothing is changed then.
    """
    change: dict[str, Any] = {"name": name, "firmware_version": firmware_version}
    body = {field: value or None for field, value in change.items() if value is not None}
    body |= {"metadata": dict(metadata)} if metadata else {}
    body |= {"settings": nested(settings)} if settings else {}
    if not body:
        raise click.UsageError("Say what to change: --name, --firmware-version, --metadata or --setting.")
    changed = on_device(place, device, lambda api, device_id: api.patch(at("devices", device_id), body))
    if as_json:
        output.as_json(changed)
    else:
        output.details({field: changed[field] for field in ("id", "serial_number", *body)})
