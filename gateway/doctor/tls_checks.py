"""Checks of certificates: those of the gateway, and the one that its broker shows."""

from __future__ import annotations

import asyncio
import ssl
import stat
from typing import TYPE_CHECKING, Final

from gateway.broker.selection import verified_by
from gateway.core.addresses import BrokerUrl
from gateway.core.clock import DAY_MS, system_clock, to_rfc3339
from gateway.core.text import count
from gateway.doctor.findings import Area, Finding
from gateway.tls import certificates as pem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from gateway.settings.loading import Settings

TLS: Final = Area("certificates")
ANSWER_SECONDS: Final = 5.0
SOON_DAYS: Final = 14
_OTHERS_READ: Final = stat.S_IROTH
_RENEW: Final = "Renew it in place; a running gateway takes it up within half a minute, or at once after SIGHUP."


def certificates(settings: Settings) -> Iterator[Finding]:
    """Check the files of the settings: readable, matching, not about to expire, the key readable by its owner alone."""
    for name in ("http", "mqtt", "broker"):
        chain, key = getattr(settings, f"{name}_cert_file"), getattr(settings, f"{name}_key_file")
        if chain is not None and key is not None:
            yield from _of_files(f"{name}_cert_file", chain, key)
    if settings.insecure_listen:
        yield TLS.warning(
            "insecure_listen",
            "listeners may be reached by other machines without TLS: who hears that network has keys and tokens",
            "Give http_cert_file and mqtt_cert_file, and leave insecure_listen out ('gateway docs tls').",
        )


def _of_files(name: str, chain: Path, key: Path) -> Iterator[Finding]:
    try:
        pem.client_context(None, chain, key)
        yield _valid_until(name, pem.expiry(chain))
    except pem.CertificateError as error:
        yield TLS.error(name, error.message, "See 'gateway docs tls'.")
        return
    if key.stat().st_mode & _OTHERS_READ:
        yield TLS.error(f"{name}'s key", f"everybody on this machine may read {key}", f"chmod o-rwx {key}")


def _valid_until(name: str, expires_at: int) -> Finding:
    days = (expires_at - system_clock()) // DAY_MS
    when = to_rfc3339(expires_at)
    if days < 0:
        return TLS.error(name, f"it expired at {when}: no client takes it any more", _RENEW)
    if days < SOON_DAYS:
        return TLS.warning(name, f"it expires at {when}, in {count(days, 'day')}", _RENEW)
    return TLS.ok(name, f"valid until {when}")


async def listener(settings: Settings) -> AsyncIterator[Finding]:
    """Check the broker's own certificate, where it has one that must be verified."""
    if not isinstance(settings.broker, BrokerUrl):
        return
    address = settings.broker.address
    if not settings.broker.tls:
        if not address.is_loopback:
            yield TLS.warning(
                "link to the broker",
                f"what goes to {address} can be read on the network, the gateway's password first",
                "Use mqtts:// ('gateway docs tls').",
            )
        return
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=verified_by(settings))
    except ssl.SSLCertVerificationError as error:
        yield TLS.error(
            "broker's certificate",
            f"it cannot be verified: {error.verify_message}",
            "Name its authority by broker_ca_file, and the host as its certificate does.",
        )
        return
    except (OSError, TimeoutError):
        return  # that it cannot be reached is reported with the broker
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    yield _valid_until("broker's certificate", int(ssl.cert_time_to_seconds(certificate["notAfter"])) * 1000)
