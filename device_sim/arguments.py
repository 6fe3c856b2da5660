"""Command-line arguments of `device-sim`: options that commands share, and checks of their values."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

import click

from device_sim.actions import SERIAL
from device_sim.flash import Flash
from device_sim.options import MqttVersion, Options, RadioKind, Transport

RADIOS = get_args(RadioKind)


def check_url(context: click.Context, parameter: click.Parameter, url: str) -> str:
    """Return the URL of a gateway without a slash at its end.

    Raises:
        click.BadParameter: it is no HTTP URL, or it has a path.
    """
    del context, parameter  # click's signature
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{url!r} should be like http://127.0.0.1:8080", param_hint="--url")
    if parts.path not in ("", "/"):
        origin = f"{parts.scheme}://{parts.netloc}"
        raise click.BadParameter(f"it should have no path: {origin} instead of {url}", param_hint="--url")
    return url.rstrip("/")


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that provisions devices."""
    options = [
        click.option("--url", envvar="GATEWAY_URL", show_envvar=True, default="http://127.0.0.1:8080",
                     show_default=True, callback=check_url, help="URL of the gateway."),
        click.option("--key", envvar="GATEWAY_API_KEY", show_envvar=True, metavar="sk_…",
                     help="API key of the companion app, with devices:write. Other users can see it here."),
        click.option("--api-key-file", type=click.Path(exists=True, dir_okay=False), help="File with the API key."),
        click.option("--interval", type=click.FloatRange(min=0.05), default=60.0, show_default=True,
                     metavar="SECONDS", help="Pause between heartbeats."),
        click.option("--transport", type=click.Choice(get_args(Transport)), default="mqtt", show_default=True,
                     help="Protocol over WiFi and the modem."),
        click.option("--mqtt-version", type=click.Choice(get_args(MqttVersion)), default="3.1.1", show_default=True,
                     help="MQTT version of the device."),
        click.option("--ca-file", type=click.Path(exists=True, dir_okay=False),
                     help="Authorities (PEM) to trust for TLS, over HTTP and MQTT."),
        click.option("--backoff-longest", type=click.FloatRange(min=0.05), default=60.0, show_default=True,
                     metavar="SECONDS", help="Longest pause before a reconnect."),
        click.option("--backoff-refused", type=click.FloatRange(min=0.05), default=300.0, show_default=True,
                     metavar="SECONDS", help="Longest pause after a refused password."),
        click.option("--recordings", type=click.IntRange(0, 1000), default=0, show_default=True, metavar="N",
                     help="Recordings of each binding that wait for their upload."),
        click.option("--model", default="bota_pin", show_default=True, help="Model to register as."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def parse_mix(text: str) -> dict[RadioKind, float]:
    """Parse a mix of radios such as `wifi=6,ble=1`.

    Raises:
        click.BadParameter: it has another form.
    """
    mix: dict[RadioKind, float] = {}
    for part in text.split(","):
        radio, _, weight = part.strip().partition("=")
        if radio not in RADIOS or not weight.replace(".", "", 1).isdigit():
            raise click.BadParameter(
                f"{part!r} should be RADIO=WEIGHT with RADIO one of {', '.join(RADIOS)}, for example wifi=6,ble=1",
                param_hint="--radio-mix",
            )
        mix[cast("RadioKind", radio)] = float(weight)
    if sum(mix.values()) <= 0:
        raise click.BadParameter("at least one weight should be above 0", param_hint="--radio-mix")
    return mix


def choose_serial(requested: str | None, flash: Flash, seed: int) -> str:
    """Return the serial number that was asked for, else the one in the flash, else one made from the seed.

    Raises:
        click.BadParameter: the flash belongs to another serial number.
    """
    stored = flash.kept_area.get(SERIAL)
    if requested is not None and stored is not None and requested != stored:
        raise click.BadParameter(
            f"the flash belongs to {stored}; leave --serial out or name that", param_hint="--serial"
        )
    return requested or stored or f"SIM-{seed:06d}"


def require_key(given: dict[str, Any], *, paired: bool) -> None:
    """Set the API key, which provisioning needs. The key of --api-key-file has priority.

    Raises:
        click.UsageError: a key is needed and was not given.
    """
    if given["api_key_file"] is not None:
        given["key"] = Path(given["api_key_file"]).read_text(encoding="utf-8", errors="replace").strip()
    if given["key"] or paired:
        return
    if given["key"] == "":
        raise click.UsageError(
            "The API key is empty: give one with --api-key-file FILE or GATEWAY_API_KEY, or unset that variable."
        )
    raise click.UsageError(
        "An API key is needed: --api-key-file FILE or GATEWAY_API_KEY; `gateway keys create --name simulator` makes "
        "one."
    )


def build_options(given: dict[str, Any]) -> Options:
    """Return the device options among the given options."""
    names = {each.name for each in fields(Options)}
    return Options(**{name: value for name, value in given.items() if name in names})
