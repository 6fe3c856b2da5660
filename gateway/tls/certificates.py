"""Server certificates of the gateway's listeners, reloaded while it runs (docs/tls.md).

A renewed certificate is noticed within half a minute, or at once after SIGHUP. One that cannot be used changes nothing:
the old one stays, and the log, ``/ready`` and ``gateway doctor`` say what is wrong with the new one.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gateway.core.clock import system_clock, to_rfc3339
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

log = structlog.get_logger()

LOOKED_AT_EVERY_SECONDS: Final = 30.0
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2 in OpenSSL's notation: forward secrecy and no CBC (RFC 9325, section 4.2)."""
_COMMON_NAME: Final = "commonName"


class _ClosingSocket(ssl.SSLSocket):
    """Closes when its handshake fails. paho 2 leaves such a socket open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class CertificateError(UnavailableError):
    """A certificate, its key or an authority cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Files:
    """PEM files: the chain (own certificate first), its key, and the authority of client certificates, if any."""

    chain: Path
    key: Path
    client_authority: Path | None = None
    client_required: bool = True
    """Whether a client without a certificate is refused in the handshake, or accepted and refused with a message."""


class ServerCertificate:
    """The certificate of one listener. ``listener`` is ``http`` or ``mqtt``."""

    def __init__(self, listener: str, files: Files, *, hsts_seconds: int = 0) -> None:
        """Load it. ``hsts_seconds``: how long browsers shall use HTTPS alone for its host; 0 sends no such header.

        Raises:
            CertificateError: it cannot be used.
        """
        self.listener = listener
        self.hsts_seconds = hsts_seconds
        self.last_error: str | None = None
        self.on_taken_up: Callable[[], None] = lambda: None
        """Called in a thread after a renewal, for other parts that must know."""
        self._files = files
        self._seen = _stamp(files)
        self.context = _server_context(files)
        self.expires_at = expiry(files.chain)

    @property
    def asks_clients(self) -> bool:
        """Return whether clients are asked for a certificate."""
        return self._files.client_authority is not None

    @property
    def chain(self) -> Path:
        """Return the file of the chain."""
        return self._files.chain

    @property
    def key(self) -> Path:
        """Return the file of the key."""
        return self._files.key

    def look(self) -> None:
        """Reload the files if they have changed. New connections get the new certificate."""
        stamp = _stamp(self._files)
        if stamp == self._seen:
            return
        try:
            _server_context(self._files)  # a context that fails half-way would hold a certificate without its key
            expires_at = expiry(self._files.chain)
            _load_chain(self.context, self._files)
        except CertificateError as error:
            if self.last_error != error.message:
                log.error("certificate.not_taken_up", listener=self.listener, message=error.message)  # noqa: TRY400 - the message says it all
            self.last_error = error.message
            return
        self._seen, self.expires_at, self.last_error = stamp, expires_at, None
        self.on_taken_up()
        log.info("certificate.taken_up", listener=self.listener, expires_at=to_rfc3339(self.expires_at))

    @property
    def expired(self) -> bool:
        """Return whether the certificate has expired."""
        return self.expires_at <= system_clock()

    def report(self) -> dict[str, object]:
        """Return its state for ``/ready``: good while it is valid and the newest files are loaded."""
        error = f"The certificate has expired: renew {self._files.chain}." if self.expired else None
        return {
            "listener": self.listener,
            "expires_at": to_rfc3339(self.expires_at),
            "error": self.last_error or error,
        }


class Renewal:
    """Checks the certificates every half minute, and when asked."""

    def __init__(self, certificates: Iterable[ServerCertificate]) -> None:
        self.certificates = tuple(certificates)
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Check now; for a signal handler."""
        self._asked.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOKED_AT_EVERY_SECONDS):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            for certificate in self.certificates:
                await asyncio.to_thread(certificate.look)


def client_context(
    authority: Path | None, chain: Path | None = None, key: Path | None = None, *, pinned: Path | None = None
) -> ssl.SSLContext:
    """Return a context that verifies servers: by this authority, by the system's, or as the holder of ``pinned``.

    ``chain`` and ``key`` are our own client certificate.

    Raises:
        CertificateError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=pinned or authority)
    except OSError as error:
        raise _unusable(pinned or authority, error) from error
    context.sslsocket_class = _ClosingSocket
    _restrict(context)
    if pinned is not None:  # the file identifies the server, so its names and its issuer need not
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if chain is not None and key is not None:
        _load_chain(context, Files(chain, key))
    return context


def expiry(chain: Path) -> int:
    """Return when the first certificate of this file expires, in milliseconds since the epoch.

    Raises:
        CertificateError: it holds none.
    """
    from cryptography import x509  # noqa: PLC0415 - 1.5 MB that a gateway without TLS does not need

    try:
        first = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise _unusable(chain, error) from error
    return _milliseconds(first.not_valid_after_utc)


def common_name(certificate: Mapping[str, object] | None) -> str | None:
    """Return the common name in what ``SSLObject.getpeercert`` returns, or None unless there is exactly one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for name, value in part if name == _COMMON_NAME]  # type: ignore[attr-defined]
    return names[0] if len(names) == 1 else None


def _milliseconds(when: dt.datetime) -> int:
    return int(when.timestamp() * 1000)


def _server_context(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _restrict(context)
    _load_chain(context, files)
    if files.client_authority is not None:
        try:
            context.load_verify_locations(files.client_authority)
        except OSError as error:
            raise _unusable(files.client_authority, error) from error
        context.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_OPTIONAL
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"@SECLEVEL=2:{CIPHERS}")


def _load_chain(context: ssl.SSLContext, files: Files) -> None:
    for file in (files.chain, files.key):
        try:
            file.open("rb").close()
        except OSError as error:
            raise _unusable(file, error) from error
    try:
        context.load_cert_chain(files.chain, files.key, password=_no_password)
    except _EncryptedKeyError:
        raise CertificateError(
            f"{files.key} is encrypted, and nobody is there to enter its password. Decrypt it: "
            f"openssl pkey -in {files.key} -out PLAIN.key; chmod 600 PLAIN.key."
        ) from None
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"{files.chain} and {files.key} cannot be used together ({error}). The one should hold the certificate "
            "and those between it and the authority, in PEM; the other the key that belongs to it."
        ) from error


class _EncryptedKeyError(ValueError):
    """The key is encrypted with a password."""


def _no_password() -> str:
    raise _EncryptedKeyError


def _stamp(files: Files) -> tuple[object, ...]:
    """Return a value that changes whenever a file is replaced or written. A missing file counts as None."""
    return tuple(_identity(file) for file in (files.chain, files.key))


def _identity(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _unusable(file: Path | None, error: Exception) -> CertificateError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return CertificateError(
        f"{file} cannot be used ({reason}). It should be a PEM file that the gateway's user may read."
    )
