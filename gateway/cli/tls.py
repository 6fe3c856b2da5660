"""``gateway tls``: certificates of one's own, for a trial or a closed site."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.core import ids

if TYPE_CHECKING:
    from gateway.tls.ca import Pair

SERVER: Final = "server"
LOCAL: Final = ("localhost", "127.0.0.1", "::1")

EPILOG: Final = """\b
Examples:
  gateway tls init ./tls --host gateway.lan --host 192.168.1.20
  gateway tls device ./tls dev_01M841CNWQZHQNKKY3SWJGTV4W

A site that already has an authority uses that one: any PEM files will do. 'gateway docs tls' has the whole way.
"""


class _DeviceId(click.ParamType[str]):
    name = "device"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not ids.is_id(ids.DEVICE, value):
            self.fail(
                f"{value!r} should be a device's id, such as dev_01M841CNWQZHQNKKY3SWJGTV4W: "
                "'gateway devices list --serial-number SERIAL' shows it",
                param,
                ctx,
            )
        return value


DIRECTORY: Final = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
JSON: Final = click.option("--json", "as_json", is_flag=True, help="The files as JSON.")


@click.group(name="tls", epilog=EPILOG)
def tls_group() -> None:
    """Make certificates of your own.

    An authority first, then certificates of it for servers and devices.
    """


@tls_group.command(epilog=EPILOG)
@DIRECTORY
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name or an IP address by which others reach this machine; again for each.  [default: its host name]",
)
@JSON
def init(*, directory: Path, hosts: tuple[str, ...], as_json: bool) -> None:
    """Make an authority and a server certificate.

    Both lie in DIR. Called once more, it keeps the authority and renews the server's certificate, which a running
    gateway loads by itself.
    """
    from gateway.tls.ca import Authority  # noqa: PLC0415 - cryptography, which is not needed before

    authority = Authority(directory)
    pair = authority.server(SERVER, (*(hosts or (socket.gethostname(),)), *LOCAL))
    _show(authority.files.certificate, pair, as_json=as_json)
    if not as_json:
        output.note(
            f"Serve with it: gateway serve --http 0.0.0.0:8443 --http-cert-file {pair.certificate} --http-key-file "
            f"{pair.key}\nClients trust {authority.files.certificate}. Keep ca.key to yourself: it can make anyone."
        )


@tls_group.command(epilog=EPILOG)
@DIRECTORY
@click.argument("device_id", metavar="DEVICE", type=_DeviceId())
@JSON
def device(*, directory: Path, device_id: str, as_json: bool) -> None:
    """Make the certificate of a device.

    By it the device shows who it is, beside its token (settings http_client_ca_file and mqtt_client_ca_file).
    """
    from gateway.tls.ca import Authority  # noqa: PLC0415 - as above

    if not (directory / "ca.pem").exists():
        raise click.UsageError(f"There is no authority in {directory}: make it with 'gateway tls init {directory}'.")
    authority = Authority(directory)
    _show(authority.files.certificate, authority.client(device_id), as_json=as_json)


def _show(authority: Path, pair: Pair, *, as_json: bool) -> None:
    files = {"authority": str(authority), "certificate": str(pair.certificate), "key": str(pair.key)}
    if as_json:
        output.as_json(files)
    else:
        output.details(files)
