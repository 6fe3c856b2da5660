"""Which certificate of a gateway the command line trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.connection_errors import CA_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path
    from ssl import SSLContext


def trusting(authority: Path | None, pinned: Path | None) -> SSLContext | bool:
    """Who may answer: whom this authority signed; or whose certificate the data directory names; or the usual."""
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
