"""Broker selection: the one that the gateway runs, or an external one, and what the gateway manages there."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import structlog

from broker_config import local
from gateway.broker.access_sync import AccessManager, NoAccess
from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.embedded.access import EmbeddedAccess
from gateway.broker.mosquitto import file_record, managed, reloader
from gateway.broker.mosquitto.access import NOT_SIGNALLED, MosquittoAccess
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.mosquitto.session_locks import NAME as LOCKS
from gateway.broker.mosquitto.session_locks import SessionLocks, derived_password
from gateway.broker.own_passwords import own_passwords
from gateway.broker.service_accounts import GATEWAY_USER, service_accounts
from gateway.core.addresses import Address, BrokerUrl
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.errors import UnavailableError
from gateway.mqtt import connect
from gateway.mqtt.probe import ProbeTarget
from gateway.settings.loading import Settings
from gateway.settings.types import AUTO, EMBEDDED, MOSQUITTO
from gateway.store import Store, gauge_sql
from gateway.tls.certificates import ServerCertificate, client_context

if TYPE_CHECKING:
    from gateway.broker.embedded.server import EmbeddedBroker

log = structlog.get_logger()

_LOOPBACK: Final = "127.0.0.1"
OLDEST: Final = (2, 0)
"""The oldest version that ``broker_config`` is written for."""


@dataclass(frozen=True)
class Broker:
    """The selected broker: how the gateway connects, which access it manages, which address devices get.

    ``kind`` is ``embedded``, ``mosquitto`` (managed by the gateway) or ``external``. ``pinned`` is the certificate of a
    managed broker for clients on this machine. ``trouble`` returns what keeps a managed broker from running.
    """

    upstream: connect.BrokerAddress
    access: AccessManager
    advertised: Address
    tls: bool
    kind: str = "external"
    pinned: Path | None = None
    trouble: Callable[[], str | None] = lambda: None


async def open_broker(
    settings: Settings,
    store: Store,
    accounts: ProbeAccounts,
    certificate: ServerCertificate | None,
    stack: AsyncExitStack,
    *,
    http_certificate: ServerCertificate | None = None,
    owned: Store | None = None,
    refused: Callable[[RefusedSignIn], None] = lambda _: None,
) -> Broker:
    """Start or find the broker of these settings.

    ``owned`` is the store for what only the broker's owner writes; without it ``store``.
    A managed one runs until ``stack`` ends, with ``certificate`` if given. ``refused`` is called for sign-ins that the
    gateway refuses on the broker's behalf; it does not see Mosquitto's. A broker that authenticates through the gateway
    finds an HTTP endpoint, beyond loopback with ``http_certificate``.

    Raises:
        UnavailableError: it cannot listen, or a file for TLS cannot be used.
    """
    owned = owned or store
    if isinstance(settings.broker, BrokerUrl):
        upstream = _external(settings, settings.broker)
        if settings.broker_auth is None:
            access = await _external_access(settings, settings.broker, owned, accounts)
        else:
            from gateway.broker.external.serving import asked_access  # noqa: PLC0415 - 2 MB that few need

            access = await asked_access(settings, store, accounts, http_certificate, stack, refused, owned)
        return _advertised(settings, upstream, access, settings.broker.address, tls=upstream.tls is not None)
    return await _own(settings, store, accounts, certificate, stack, refused)


async def _own(
    settings: Settings,
    store: Store,
    accounts: ProbeAccounts,
    certificate: ServerCertificate | None,
    stack: AsyncExitStack,
    refused: Callable[[RefusedSignIn], None],
) -> Broker:
    """Start the broker that the gateway runs: of the kind that the settings name, or that is installed."""
    choice = choose(settings)
    try:
        if choice.kind == MOSQUITTO:
            broker = await _own_mosquitto(choice.program, settings, store, accounts, certificate, stack)
            log.info("broker.chosen", broker=choice.kind, why=choice.why)
            return broker
    except UnavailableError as error:
        if settings.broker == MOSQUITTO:
            raise
        choice = Choice(EMBEDDED, error.message)
    level = logging.WARNING if settings.broker == AUTO else logging.INFO
    log.log(level, "broker.chosen", broker=choice.kind, why=choice.why)
    return await _own_embedded(settings, store, accounts, certificate, stack, refused)


async def _own_mosquitto(
    program: str,
    settings: Settings,
    store: Store,
    accounts: ProbeAccounts,
    certificate: ServerCertificate | None,
    stack: AsyncExitStack,
) -> Broker:
    devices = await store.read(lambda view: gauge_sql.devices_at(view, settings.broker_id))
    own, password = managed.prepared(settings, certificate, devices), (await own_passwords(store)).of(GATEWAY_USER)
    locking = derived_password(password)
    users = {**accounts.passwords, GATEWAY_USER: password, LOCKS: locking}
    kept = await _kept_entries(own.files.password_file, store)
    fixed = {name: own_entry(secret, kept.get(name)) for name, secret in users.items()}
    file = PasswordFile(own.files.password_file, pid_file=own.files.pid_file, fixed=fixed)
    rights = managed.rights(own, settings.topic_prefix)
    target = ProbeTarget(own.inside, own.tls)
    access = MosquittoAccess(
        file, store, target, rights, SessionLocks(target, locking), secret=password, saved=managed.store_of(own)
    )
    await access.write()
    supervisor = await managed.run(own, program, settings, stack)
    if certificate:
        managed.follow(certificate, own, file)
    upstream = connect.BrokerAddress(
        own.inside.host,
        own.inside.port,
        GATEWAY_USER,
        password,
        tls=own.tls,
        version="3.1.1" if settings.mqtt_version == "3.1.1" else "5",
        keepalive_seconds=settings.mqtt_keepalive_seconds,
    )
    broker = _advertised(settings, upstream, access, own.inside, tls=certificate is not None)
    pinned = certificate.chain if certificate else None
    return replace(broker, kind=MOSQUITTO, pinned=pinned, trouble=lambda: supervisor.error)


async def _own_embedded(
    settings: Settings,
    store: Store,
    accounts: ProbeAccounts,
    certificate: ServerCertificate | None,
    stack: AsyncExitStack,
    refused: Callable[[RefusedSignIn], None],
) -> Broker:
    from gateway.broker.authentication import acquaintance, authenticator  # noqa: PLC0415 - loads amqtt, 4 MB that other brokers do not need
    from gateway.broker.embedded.server import EmbeddedBroker  # noqa: PLC0415 - the same

    password = secrets.token_urlsafe(32)
    own = service_accounts(password, accounts)
    embedded = EmbeddedBroker(
        host=settings.mqtt.host,
        port=settings.mqtt.port,
        authenticate=authenticator(store, own),
        is_known=acquaintance(store, own),
        prefix=settings.topic_prefix,
        certificate=certificate,
    )
    embedded.on_refused(lambda address: refused(RefusedSignIn("mqtt", "unknown", address)))
    broker = await _embedded(embedded, settings, stack)
    host = _LOOPBACK if settings.mqtt.is_wildcard else settings.mqtt.host
    inside = (host, broker.port) if broker.inner_port is None else (_LOOPBACK, broker.inner_port)
    keepalive = settings.mqtt_keepalive_seconds
    upstream = connect.BrokerAddress(*inside, GATEWAY_USER, password, keepalive_seconds=keepalive, devices_wait=True)
    outside = Address(host, broker.port)
    chosen = _advertised(settings, upstream, EmbeddedAccess(broker, store), outside, tls=certificate is not None)
    return replace(chosen, kind=EMBEDDED)


async def _embedded(broker: EmbeddedBroker, settings: Settings, stack: AsyncExitStack) -> EmbeddedBroker:
    try:
        return await stack.enter_async_context(broker)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(
            f"The embedded broker cannot listen on {settings.mqtt} ({reason}). Stop what does, choose another with "
            "--mqtt HOST:PORT, or let the gateway use the broker that runs there: --broker mqtt://USER:PASSWORD@HOST."
        ) from error


def verified_by(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for an external broker, or None without TLS.

    Raises:
        CertificateError: a file cannot be used.
    """
    if not isinstance(settings.broker, BrokerUrl) or not settings.broker.tls:
        return None
    return client_context(settings.broker_ca_file, settings.broker_cert_file, settings.broker_key_file)


def _external(settings: Settings, url: BrokerUrl) -> connect.BrokerAddress:
    if not url.tls and not Address(url.address.host, url.address.port).is_loopback:
        log.warning(
            "broker.link_not_encrypted",
            message="The gateway's own password, and all that devices say, cross the network to the broker in the "
            "clear. Use mqtts:// ('gateway docs tls').",
        )
    return connect.BrokerAddress(
        url.address.host,
        url.address.port,
        url.username,
        None if url.password is None else url.password.get_secret_value(),
        tls=verified_by(settings),
        version="3.1.1" if settings.mqtt_version == "3.1.1" else "5",
        keepalive_seconds=settings.mqtt_keepalive_seconds,
        shared=True,
    )


async def _kept_entries(path: Path, store: Store) -> Mapping[str, str]:
    """Return the entries of accounts in the password file. Entries that are still right are not made again."""
    known = await store.read(lambda view: file_record.known(view, store.context.broker))
    return await asyncio.to_thread(kept_entries, path, known)


async def _external_access(settings: Settings, url: BrokerUrl, store: Store, accounts: ProbeAccounts) -> AccessManager:
    if settings.mosquitto_password_file is None:
        log.warning("broker.access_not_managed", message=NoAccess.limitation)
        return NoAccess()
    kept = await _kept_entries(settings.mosquitto_password_file, store)
    own = {name: own_entry(password, kept.get(name)) for name, password in accounts.passwords.items()}
    target, locks, password = ProbeTarget(url.address, verified_by(settings)), None, None
    if url.username is not None and url.password is not None:
        password = url.password.get_secret_value()
        locking = derived_password(password)
        own[url.username] = own_entry(password, kept.get(url.username))
        own[LOCKS] = own_entry(locking, kept.get(LOCKS))
        locks = SessionLocks(target, locking)
    asked = settings.mosquitto_reload_socket
    file = PasswordFile(
        settings.mosquitto_password_file,
        pid_file=settings.mosquitto_pid_file,
        fixed=own,
        ask_for_reload=None if asked is None else partial(reloader.ask, asked),
    )
    if not file.is_signalled:
        log.warning("broker.not_signalled", message=NOT_SIGNALLED)
    return MosquittoAccess(file, store, target, locks=locks, secret=password)


def _advertised(
    settings: Settings, upstream: connect.BrokerAddress, access: AccessManager, at: Address, *, tls: bool
) -> Broker:
    if settings.own_broker and settings.mqtt.is_wildcard and settings.mqtt_advertise is None:
        log.warning(
            "broker.not_advertised",
            message=f"Devices that are bound are told to connect to {at}, which is this machine for this machine "
            "alone. Say with mqtt_advertise by which name they reach it.",
        )
    told = settings.mqtt_tls_advertise
    return Broker(upstream, access, settings.mqtt_advertise or at, tls if told is None else told)


@dataclass(frozen=True)
class Choice:
    """``program`` is the path of Mosquitto, where that was chosen; ``why`` is logged at the start."""

    kind: Literal["embedded", "mosquitto"]
    why: str
    program: str = ""


def choose(settings: Settings) -> Choice:
    """Return the broker that the gateway runs under these settings.

    Raises:
        UnavailableError: the settings name Mosquitto, and it is not installed or too old.
    """
    if settings.broker == EMBEDDED:
        return Choice(EMBEDDED, "it is what 'broker' says")
    if settings.broker != MOSQUITTO and settings.mqtt_client_ca_file:
        return Choice(
            EMBEDDED,
            "mqtt_client_ca_file is set, and Mosquitto does not compare a certificate's CN with the device's id",
        )
    try:
        program = usable()
    except UnavailableError as error:
        if settings.broker == MOSQUITTO:
            raise
        return Choice(EMBEDDED, error.message)
    return Choice(MOSQUITTO, f"{program} is installed", program)


def usable() -> str:
    """Return the path of a Mosquitto that is new enough.

    Raises:
        UnavailableError: it is missing or too old; the message says what to install.
    """
    try:
        program = local.binary()
        found = local.version(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(
            f"Mosquitto cannot be run here ({error}). Install it (Debian: apt-get install mosquitto), or use the "
            "embedded broker: --broker embedded."
        ) from error
    if found is None or found < OLDEST:
        version = f"{found[0]}.{found[1]}" if found else "of an unknown version"
        raise UnavailableError(f"{program} is {version}, and 2.0 or newer is needed.")
    return program
