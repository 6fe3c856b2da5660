"""Reasons and remedies when no gateway answers over HTTP: an untrusted certificate, or a closed port."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from gateway.cli.lazy_loading import lazily
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
else:
    httpx = lazily("httpx")

E = TypeVar("E", bound=BaseException)

KEY_VARIABLE: Final = "GATEWAY_API_KEY"
URL_VARIABLE: Final = "GATEWAY_URL"
CA_VARIABLE: Final = "GATEWAY_CA_FILE"
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAMES: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def unreached(url: str, error: httpx.HTTPError, authority: Path | None) -> UnavailableError:
    """Return the error to show; ``authority`` is the file of ``--ca-file``, if it was given."""
    trouble = _cause(error, ssl.SSLError)
    if isinstance(trouble, ssl.SSLCertVerificationError):
        return UnavailableError(_not_trusted(url, trouble, authority))
    if trouble is not None:
        return UnavailableError(
            f"No TLS with {url} ({trouble.reason or trouble}). Check --url or {URL_VARIABLE}: what answers there may "
            "speak plain http://, and may ask for a client certificate if it is a proxy."
        )
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url.startswith("http://"):
        return UnavailableError(
            f"What is at {url} hangs up. If it speaks TLS, --url or {URL_VARIABLE} has to begin with https://."
        )
    if (unknown := _cause(error, socket.gaierror)) is not None:
        return UnavailableError(
            f"The host name {urlsplit(url).hostname} cannot be resolved ({unknown.strerror}). Check --url or "
            f"{URL_VARIABLE}, and the name server of this machine."
        )
    return UnavailableError(
        f"No gateway answers at {url} ({str(error) or type(error).__name__}). Check that one runs there, and "
        f"{URL_VARIABLE} or --url; without {KEY_VARIABLE} and a URL, commands work on the data directory itself."
    )


def _not_trusted(url: str, error: ssl.SSLCertVerificationError, authority: Path | None) -> str:
    said = f"The certificate of {url} is not trusted ({error.verify_message.rstrip('.')})."
    if error.verify_code in _OTHER_NAMES:
        return (
            f"{said} Name the gateway in --url or {URL_VARIABLE} as its certificate does, or renew that for this name."
        )
    if error.verify_code == _EXPIRED:
        return f"{said} Have it renewed, and check the clock of this machine."
    if authority is None:
        return f"{said} Name the PEM file of the authority that signed it with --ca-file or {CA_VARIABLE}."
    return (
        f"{said} The authority in {authority} did not sign it: name the one that did with --ca-file or {CA_VARIABLE}."
    )


def _cause(error: BaseException, kind: type[E]) -> E | None:
    """Return the error of this kind that is behind this one, or None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause
