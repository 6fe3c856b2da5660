"""Trust of the command line in a gateway's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.connection_errors import CA_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path
    from ssl import SSLContext


def trusting(authority: Path | None, pinned: Path | None) -> SSLContext | bool:
    """Return the trust: in this authority, in the certificate that the data directory names, or the usual one."""
    if authority is None and pinned is None:
        return True
    from gateway.tls.certificates import CertificateError, client_context  # noqa: PLC0415 - cryptography, not needed before

    try:
        return client_context(authority, pinned=None if authority else pinned)
    except CertificateError as error:
        if authority is None:
            raise
        raise click.UsageError(
            f"--ca-file or {CA_VARIABLE} should name a PEM file with the authority of the gateway's certificate, and "
            f"{authority} is none that can be read."
        ) from error
