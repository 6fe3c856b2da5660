"""The public keys that ``gateway certificates verify`` is given: in a file, or at a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from gateway.cli.connection_errors import unreached
from gateway.cli.lazy_loading import lazily
from gateway.cli.server_trust import trusting
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    import httpx

    from gateway.domain.certificate_check import PublicKey
else:
    httpx = lazily("httpx")

_SECONDS: Final = 30.0
_PATH: Final = "/.well-known/jwks.json"


def keys_at(source: str, authority: Path | None) -> dict[str, PublicKey]:
    """Return the keys by their ids.

    Raises:
        click.UsageError: the file cannot be read.
        UnavailableError: nothing answers at the URL, or something else than keys.
        CertificateError: it holds no keys.
    """
    from gateway.domain.certificate_check import keys  # noqa: PLC0415 - cryptography

    if source.startswith(("http://", "https://")):
        return keys(_fetched(source, authority))
    try:
        return keys(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(
            f"--jwks: {source} cannot be read ({error}). It should be a file, or a URL that begins with https://."
        ) from error


def _fetched(url: str, authority: Path | None) -> str:
    try:
        urlsplit(url)
    except ValueError as error:
        raise click.UsageError(f"--jwks: {url} is no URL ({error}).") from error
    try:
        answer = httpx.get(url, timeout=_SECONDS, verify=trusting(authority, None))
    except httpx.HTTPError as error:
        raise UnavailableError(f"--jwks: {unreached(url, error, authority).message}") from error
    except httpx.InvalidURL as error:
        raise click.UsageError(f"--jwks: {url} is no URL ({error}).") from error
    if answer.status_code != httpx.codes.OK:
        raise UnavailableError(
            f"--jwks: {url} answers {answer.status_code}. The keys of a gateway are at its {_PATH}, such as "
            f"https://gateway.example{_PATH}."
        )
    return answer.text
