"""The composition root: everything is made here and handed on as arguments; start, run and stop read in this order."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gateway import __version__
from gateway.addresses import Address, BrokerUrl
from gateway.broker import probes
from gateway.broker.accounts import kept_entries, own_entry
from gateway.broker.authentication import GATEWAY_USER, authenticator
from gateway.broker.embedded import EmbeddedBroker
from gateway.broker.keeper import Access, EmbeddedAccess, Keeper, MosquittoAccess, NoAccess
from gateway.broker.mosquitto import PasswordFile
from gateway.errors import UnavailableError
from gateway.first_start import first_start, rules_of
from gateway.http.app import build
from gateway.http.server import HttpServer
from gateway.http.services import Services
from gateway.http.streams import Limits, Streams
from gateway.metrics import Metrics
from gateway.mqtt import link
from gateway.mqtt.connection import Connection
from gateway.outbound.sender import Sender
from gateway.outbound.webhooks import Webhooks
from gateway.outbox import Bells
from gateway.readiness import Readiness
from gateway.scrape import Scrape
from gateway.settings import Loaded, Settings
from gateway.store import Context, Store, devices, keys
from gateway.store.lock import exclusive
from gateway.sweeper import Sweeper
from gateway.topics import Topics
from gateway.watcher import Watcher
from gateway.whereabouts import Whereabouts, published

log = structlog.get_logger()


@dataclass(frozen=True)
class Running:
    """A gateway at work: where it listens, and its parts for those who run it inside their own program."""

    settings: Settings
    store: Store
    http_url: str
    broker: Address
    tls: bool
    gateway_id: str
    project_id: str
    keeper: Keeper
    connection: Connection
    topics: Topics
    upstream: link.Address
    bells: Bells

    async def synced(self, device_id: str, seconds: float = 10.0) -> bool:
        """Wait until the broker knows all that was committed about this device; ``False`` when that took too long."""
        device = await self.store.read(lambda view: devices.any_by_id(view, device_id))
        return device is not None and await self.bells.synced(self.store, device["pk"], seconds)


async def serve(loaded: Loaded) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with running(loaded.settings) as gateway:
        await _announce(gateway)
        await stop.wait()
        log.info("gateway.stopping")
    log.info("gateway.stopped")
    return 0


async def _announce(gateway: Running) -> None:
    scheme = "mqtts" if gateway.tls else "mqtt"
    kind = "embedded broker" if gateway.settings.embedded else "your broker"
    lines = [
        f"gateway {__version__} is ready",
        f"  HTTP  {gateway.http_url}",
        f"  MQTT  {scheme}://{gateway.broker} ({kind})",
        f"  data  {gateway.settings.data_dir}",
    ]
    if not await gateway.store.read(keys.all_keys):
        data_dir = shlex.quote(str(gateway.settings.data_dir))
        lines.append(f"Make an API key: {_as_called()} keys create --name NAME --data-dir {data_dir}")
    print("\n".join(lines), flush=True)  # noqa: T201 - for the person who started it


def _as_called() -> str:
    """This program as it can be typed again: in a virtual environment it is not on everybody's PATH."""
    called, found = Path(sys.argv[0]), shutil.which("gateway")
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m gateway"
    return "gateway" if found and called.exists() and called.samefile(found) else shlex.quote(sys.argv[0])


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start every part, hand over the gateway, and stop every part in the opposite order.

    Raises:
        GatewayError: it cannot start; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(exclusive(settings.data_dir))
        gateway_id, project_id = first_start(settings)
        bells, topics, metrics = Bells(), Topics(settings.topic_prefix), Metrics()
        store = await stack.enter_async_context(
            Store(
                settings.data_dir,
                Context(rules=rules_of(settings, gateway_id)),
                on_commit=bells.committed,
                on_news=bells.recorded,
                on_measures=metrics.take,
            )
        )
        accounts = probes.ProbeAccounts()
        stack.enter_context(probes.published(settings.data_dir, accounts))
        upstream, access = await _broker(settings, store, accounts, stack)
        keeper = Keeper(store, bells, access)
        connection = Connection(
            upstream,
            auto_version=settings.mqtt_version == "auto",
            gateway_id=gateway_id,
            store=store,
            topics=topics,
            bells=bells,
            on_connected=metrics.connected,
        )
        devices_go_to, tls = _advertised(settings, upstream)
        streams = Streams(Limits(settings.event_streams_per_key, settings.event_streams))
        sender = Sender(allow_private=settings.webhook_allow_private)
        await stack.enter_async_context(
            _background(
                keeper.run(),
                connection.run(),
                Sweeper(store).run(),
                Watcher(store, bells).run(),
                Webhooks(store, bells, sender).run(),
            )
        )
        readiness = Readiness(store, connection, keeper)
        services = Services(
            store=store,
            topics=topics,
            broker_address=lambda: (devices_go_to.host, devices_go_to.port, tls),
            synced=lambda device_pk, seconds: bells.synced(store, device_pk, seconds),
            readiness=readiness.report,
            scrape=Scrape(metrics, store, settings.data_dir, readiness.report).text,
            metrics=metrics,
            max_body_bytes=settings.max_body_bytes,
            rate_limit_per_minute=settings.rate_limit_per_minute,
            bind_broker_wait_seconds=settings.bind_broker_wait_seconds,
            bells=bells,
            streams=streams,
            sender=sender,
        )
        http = await stack.enter_async_context(
            HttpServer(build(services), settings.http.host, settings.http.port, stopping=streams.close)
        )
        stack.enter_context(published(settings.data_dir, Whereabouts(http.url, devices_go_to, tls)))
        log.info("gateway.started", version=__version__, http=http.url, broker=str(devices_go_to), access=access.name)
        yield Running(
            settings,
            store,
            http.url,
            devices_go_to,
            tls,
            gateway_id,
            project_id,
            keeper=keeper,
            connection=connection,
            topics=topics,
            upstream=upstream,
            bells=bells,
        )


async def _broker(
    settings: Settings, store: Store, accounts: probes.ProbeAccounts, stack: AsyncExitStack
) -> tuple[link.Address, Access]:
    if isinstance(settings.broker, BrokerUrl):
        return _external(settings, settings.broker), _external_access(settings, settings.broker, store, accounts)
    password = secrets.token_urlsafe(32)
    embedded = EmbeddedBroker(
        host=settings.mqtt.host,
        port=settings.mqtt.port,
        authenticate=authenticator(store, password, accounts),
        prefix=settings.topic_prefix,
    )
    try:
        broker = await stack.enter_async_context(embedded)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UnavailableError(
            f"The embedded broker cannot listen on {settings.mqtt} ({reason}). Stop what does, choose another with "
            "--mqtt HOST:PORT, or let the gateway use the broker that runs there: --broker mqtt://USER:PASSWORD@HOST."
        ) from error
    host = "127.0.0.1" if settings.mqtt.is_wildcard else settings.mqtt.host
    upstream = link.Address(
        host, broker.port, GATEWAY_USER, password, keepalive_seconds=settings.mqtt_keepalive_seconds
    )
    return upstream, EmbeddedAccess(broker, store)


def _external(settings: Settings, url: BrokerUrl) -> link.Address:
    tls = ssl.create_default_context(cafile=settings.broker_ca_file) if url.tls else None
    return link.Address(
        url.address.host,
        url.address.port,
        url.username,
        None if url.password is None else url.password.get_secret_value(),
        tls=tls,
        version="3.1.1" if settings.mqtt_version == "3.1.1" else "5",
        keepalive_seconds=settings.mqtt_keepalive_seconds,
    )


def _external_access(settings: Settings, url: BrokerUrl, store: Store, accounts: probes.ProbeAccounts) -> Access:
    if settings.mosquitto_password_file is None:
        log.warning(
            "broker.access_not_managed",
            message="Accounts and live sessions at this broker are not the gateway's to steer: a revoked device token "
            "is refused over HTTP, and at the broker by you. For Mosquitto set mosquitto_password_file.",
        )
        return NoAccess()
    own = {name: own_entry(password, None) for name, password in accounts.passwords.items()}
    if url.username is not None and url.password is not None:
        known = kept_entries(settings.mosquitto_password_file).get(url.username)
        own[url.username] = own_entry(url.password.get_secret_value(), known)
    file = PasswordFile(settings.mosquitto_password_file, pid_file=settings.mosquitto_pid_file, fixed=own)
    return MosquittoAccess(file, store)


def _advertised(settings: Settings, upstream: link.Address) -> tuple[Address, bool]:
    tls = settings.mqtt_tls_advertise
    address = settings.mqtt_advertise or Address(upstream.host, upstream.port)
    return address, upstream.tls is not None if tls is None else tls


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these beside the block; when one of them fails the block is cancelled, when the block ends they are."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
