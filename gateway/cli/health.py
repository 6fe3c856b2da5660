"""``gateway health``: whether the gateway on this machine serves, for health checks of containers and supervisors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gateway.cli.connection_errors import unreached
from gateway.cli.lazy_loading import lazily
from gateway.cli.options import with_settings
from gateway.core.visible_text import escaped_lines
from gateway.errors import UnavailableError
from gateway.runtime import endpoint_file

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpx

    from gateway.settings.loading import Loaded
else:
    httpx = lazily("httpx")

_SECONDS: Final = 5.0
EPILOG = """\b
Examples:
  gateway health
  gateway health --ready

\b
Exit codes:
  0  it serves; with --ready: the broker and the registry are in reach, too
  1  it does not
"""


@click.command(epilog=EPILOG)
@click.option("--ready", is_flag=True, help="Ask /ready instead of /health: broker and outbox count as well.")
@with_settings("data_dir")
def health(loaded: Loaded, *, ready: bool) -> int:
    """Ask the local gateway whether it serves.

    It needs no API key. Where the gateway listens is read from its data directory.
    """
    data_dir = loaded.settings.data_dir
    found = endpoint_file.read(data_dir)
    if found is None:
        raise UnavailableError(f"No gateway runs on {data_dir}. Start one with 'gateway serve', or name --data-dir.")
    verify: SSLContext | bool = True
    if found.certificate is not None:
        from gateway.tls.certificates import client_context  # noqa: PLC0415 - cryptography, for HTTPS alone

        verify = client_context(None, pinned=found.certificate)
    try:
        answer = httpx.get(f"{found.http_url}/{'ready' if ready else 'health'}", timeout=_SECONDS, verify=verify)
    except httpx.HTTPError as error:
        raise unreached(found.http_url, error, None) from error
    click.echo(escaped_lines(answer.text.strip()))
    return int(not answer.is_success)
