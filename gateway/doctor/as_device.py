"""Check of what a bind tells a device, as a device would use it: resolve, connect, verify the certificate, sign in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.broker.doctor_accounts import DEVICE
from gateway.core.addresses import Address, BrokerUrl
from gateway.doctor.findings import Area, Finding
from gateway.mqtt.probe import ProbeError, ProbeRefusedError, ProbeTarget, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.broker.doctor_accounts import ProbeAccounts
    from gateway.runtime.endpoint_file import Endpoints
    from gateway.settings.loading import Settings

TOLD: Final = Area("what devices are told")
ANSWER_SECONDS: Final = 5.0
_ADVERTISE: Final = (
    "Set mqtt_advertise to a name or address and a port by which devices reach the broker, and restart the gateway."
)


def told(settings: Settings, where: Endpoints | None) -> tuple[Address, bool] | None:
    """Return the broker's address in a bind and whether it uses TLS, or None when only a running gateway knows."""
    if where is not None:
        return where.broker, where.tls
    upstream = settings.broker if isinstance(settings.broker, BrokerUrl) else None
    address = settings.mqtt_advertise or (upstream.address if upstream else None)
    if address is None:
        return None
    tls = upstream is not None and upstream.tls if settings.mqtt_tls_advertise is None else settings.mqtt_tls_advertise
    return address, tls


async def as_device(
    address: Address, *, tls: bool, accounts: ProbeAccounts | None, inside: ProbeTarget | None
) -> AsyncIterator[Finding]:
    """Act as a device. ``inside`` is where the gateway reaches the broker; ``accounts`` are those of a running one."""
    unreachable = await _unreachable(address)
    if unreachable is not None:
        yield unreachable
        return
    context = None
    if tls:
        verdict, context = await _certificate(address)
        yield verdict
        if context is None:
            return
    if accounts is not None:
        yield await _let_in(ProbeTarget(address, context), accounts, inside)
    elif not tls:
        yield TOLD.ok("address", f"{address} answers")


async def _unreachable(address: Address) -> Finding | None:
    with suppress(ValueError):
        if ipaddress.ip_address(address.host).is_unspecified:
            return TOLD.error("address", f"{address} is no address to connect to", _ADVERTISE)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        return TOLD.error("address", f"the name {address.host} cannot be resolved ({_said(error)})", _ADVERTISE)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionRefusedError:
        return TOLD.error("address", f"nothing listens at {address}", _ADVERTISE)
    except (OSError, TimeoutError) as error:
        return TOLD.warning(
            "address",
            f"{address} cannot be reached from this machine ({_said(error)})",
            f"Try it from where the devices are. {_ADVERTISE}",
        )
    writer.transport.abort()
    return None


async def _certificate(address: Address) -> tuple[Finding, ssl.SSLContext | None]:
    """Check that the certificate names the host and is valid now.

    Its issuer is for the device's own authority to check.
    """
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        shown = await _shown(address, unverified)
        verified = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(shown))
        verified.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        await _shown(address, verified)
    except ssl.SSLCertVerificationError as error:
        says = f"what {address} shows is no certificate for {address.host}: {error.verify_message}"
        remedy = (
            "Name the broker in mqtt_advertise as its certificate does, or get one with this name ('gateway docs tls')."
        )
        return TOLD.error("certificate", says, remedy), None
    except (OSError, TimeoutError) as error:
        says = f"there is no TLS at {address}, and devices are told to use it ({_said(error)})"
        return TOLD.error("certificate", says, "Look at the port of mqtt_advertise and at mqtt_tls_advertise."), None
    return TOLD.ok("certificate", f"it names {address.host}"), verified


def _said(error: Exception) -> str:
    return str(error) or "no answer"


async def _shown(address: Address, context: ssl.SSLContext) -> bytes:
    async with asyncio.timeout(ANSWER_SECONDS):
        _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return certificate


async def _let_in(there: ProbeTarget, accounts: ProbeAccounts, inside: ProbeTarget | None) -> Finding:
    """Check that this gateway's broker answers there: no other one knows the account of the made-up device."""
    try:
        async with connected(there, DEVICE, accounts.device):
            return TOLD.ok("connect", f"a device gets in at {there.address}")
    except ProbeRefusedError as error:
        if inside is None or not await _gets_in(inside, accounts):
            return TOLD.ok("connect", f"{there.address} answers; its accounts are not the gateway's to make")
        return TOLD.error(
            "connect",
            f"{there.address} does not let in a device that the gateway's broker at {inside.address} does ({error}): "
            "it is another broker",
            _ADVERTISE,
        )
    except ProbeError as error:
        return TOLD.error("connect", f"{there.address} does not answer as a broker ({error})", _ADVERTISE)


async def _gets_in(target: ProbeTarget, accounts: ProbeAccounts) -> bool:
    try:
        async with connected(target, DEVICE, accounts.device):
            return True
    except ProbeError:
        return False
