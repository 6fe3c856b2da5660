"""The composition root: every part is made here, started in this order and stopped in the opposite order."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.announce import announce, announce_readiness, endpoints_published
from gateway.bootstrap import first_start, rules_of
from gateway.broker import doctor_accounts
from gateway.broker.capacity import CapacityMonitor, capacities
from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.external.secret import shared_secret
from gateway.broker.own_passwords import own_passwords
from gateway.broker.owner import BrokerOwner
from gateway.broker.selection import Broker, open_broker
from gateway.cluster.membership import Membership
from gateway.core.topics import Topics
from gateway.domain.refused_sign_ins import RefusedSignIns
from gateway.http.app import build
from gateway.http.server.connection_limit import ConnectionLimits
from gateway.http.server.server import HttpServer
from gateway.http.services import HttpOptions, Services, TakenIn
from gateway.http.stream_limit import StreamLimiter, StreamLimits
from gateway.observability.commit_listener import CommitListener
from gateway.observability.metrics import Metrics
from gateway.observability.metrics_endpoint import Scrape
from gateway.observability.tracers import tracer_of
from gateway.readiness import ReadinessCheck
from gateway.running import Registry, Running, Workers
from gateway.runtime import gc_tuning
from gateway.runtime.loop_priority import LoopPriority
from gateway.runtime.private_files import is_open_to_others, require_own_directory
from gateway.runtime.sealing import vault_of
from gateway.settings.loading import Loaded, Settings
from gateway.store import Context, Store, View, account_sql, broker_sql, home_sql, key_sql
from gateway.store.sqlite.lock import exclusive
from gateway.store.wakeups import Wakeups
from gateway.tls.certificates import Files, Renewal, ServerCertificate
from gateway.webhooks.sender import WebhookSender
from gateway.webhooks.worker import WebhookWorker
from gateway.workers.away_brokers import AwayBrokers
from gateway.workers.change_poller import ChangePoller
from gateway.workers.expiry import ExpiryWorker
from gateway.workers.jobs import JobWorker
from gateway.workers.key_delivery import KeyDelivery
from gateway.workers.position_notes import PositionNotes

if TYPE_CHECKING:
    from gateway.http.sign_in.people import People

log = structlog.get_logger()

SWITCH_SECONDS: Final = 0.000_5
"""How long one thread may keep others from running: at Python's 5 ms a request would wait for a busy writer that long
at each of its statements, since SQLite's library gives the interpreter away while it works."""


async def serve(loaded: Loaded, loop_priority: LoopPriority) -> int:
    """Run until SIGTERM or SIGINT, in the loop of ``loop_priority``; the exit code."""
    _raise_file_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with running(loaded.settings, loop_priority) as gateway:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, gateway.renewal.ask)
        gc_tuning.tune_gc()
        await announce(gateway)
        async with _background(announce_readiness(gateway)):
            await stop.wait()
        log.info("gateway.stopping")
    log.info("gateway.stopped")
    return 0


def _check_data_directory(directory: Path) -> None:
    """Refuse one that others could change. Others who may read it find no secret: each file there has its own mode."""
    require_own_directory(directory)
    if is_open_to_others(directory):
        log.warning(
            "data_directory.open_to_others",
            message=f"Other users may look into the data directory {directory}: chmod go-rwx {directory}",
        )


async def _warn_of_accounts(store: Store) -> None:
    """Say which accounts read all projects, where there are several: those from before accounts had one do."""
    names, projects = await store.read(lambda view: (account_sql.reading_all(view), len(key_sql.projects(view))))
    if names and projects > 1:
        log.warning(
            "broker.accounts_read_all_projects",
            accounts=names,
            message=f"{', '.join(names)} may read the devices of all {projects} projects. Where that is not meant, "
            "make accounts with 'gateway accounts create NAME --project ID', and revoke these.",
        )


def _raise_file_limit() -> None:
    """Each connection is one; the usual soft limit of 1,024 is for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@asynccontextmanager
async def running(settings: Settings, loop_priority: LoopPriority | None = None) -> AsyncIterator[Running]:
    """Start every part, hand over the gateway, and stop every part in the opposite order.

    ``loop_priority`` is the one whose loop this runs in, if it is one of those.

    Raises:
        GatewayError: it cannot start; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        registry = await _open_registry(stack, settings, loop_priority)
        accounts = await _publish_doctor_accounts(stack, settings, registry.store)
        http_tls, mqtt_tls = certificates(settings)
        renewal = Renewal(each for each in (http_tls, mqtt_tls) if each)
        await _warn_of_accounts(registry.store)
        broker = await open_broker(
            settings,
            registry.store,
            accounts,
            mqtt_tls,
            stack,
            http_certificate=http_tls,
            owned=registry.membership.broker.store,
            refused=registry.refused_sign_ins.note,
        )
        workers = await _start_workers(stack, settings, registry, broker, renewal)
        readiness = _readiness(registry, broker, workers, renewal)
        services = _services(settings, registry, broker, workers, readiness)
        await stack.enter_async_context(_background(services.erasures.run()))
        http = await _serve_http(stack, settings, services, http_tls)
        gateway = Running(settings, registry, broker, renewal, workers, readiness, http)
        stack.enter_context(endpoints_published(gateway))
        yield gateway


async def _open_registry(stack: AsyncExitStack, settings: Settings, loop_priority: LoopPriority | None) -> Registry:
    """Lock the data directory, and open the registry there. Make both if this is the first start."""
    _check_data_directory(settings.data_dir)
    stack.enter_context(exclusive(settings.data_dir))
    name, project_id = first_start(settings, to_serve=True)
    gateway_id = settings.gateway_id or name
    tracer = tracer_of(settings, gateway_id)
    stack.callback(tracer.stop)
    wakeups, topics, metrics = Wakeups(), Topics(settings.topic_prefix), Metrics()
    store = await stack.enter_async_context(
        Store(
            settings.registry,
            Context(rules=rules_of(settings, name), serves=True, vault=vault_of(settings.encryption_key_file)),
            CommitListener(wakeups, metrics),
            tracer=tracer,
            loop_priority=loop_priority,
        )
    )
    refused_sign_ins = RefusedSignIns(store, metrics.sign_in_refused)
    membership = await _joined(stack, settings, store, gateway_id)
    return Registry(gateway_id, project_id, store, wakeups, topics, metrics, refused_sign_ins, membership)


async def _joined(stack: AsyncExitStack, settings: Settings, store: Store, gateway_id: str) -> Membership:
    """Register this gateway until the stack ends. On SQLite it is the only one: it has locked the data directory."""
    membership = Membership(
        store,
        gateway_id=gateway_id,
        http=str(settings.http),
        broker_id=settings.broker_id,
        lease_seconds=settings.lease_seconds if settings.is_shared else None,
    )
    stack.push_async_callback(membership.end)
    await membership.begin()
    return membership


async def _publish_doctor_accounts(stack: AsyncExitStack, settings: Settings, store: Store) -> ProbeAccounts:
    own = await own_passwords(store)
    accounts = ProbeAccounts(own.of(doctor_accounts.READER), own.of(doctor_accounts.DEVICE)).of(settings)
    stack.enter_context(doctor_accounts.published(settings.data_dir, accounts))
    return accounts


async def _start_workers(
    stack: AsyncExitStack, settings: Settings, registry: Registry, broker: Broker, renewal: Renewal
) -> Workers:
    store, wakeups, membership = registry.store, registry.wakeups, registry.membership
    owner = BrokerOwner(
        settings, store, wakeups, registry.topics, registry.metrics, broker=broker, lease=membership.broker
    )
    sender = WebhookSender(allow_private=settings.webhook_allow_private, allow_loopback=settings.webhook_allow_loopback)
    await stack.enter_async_context(
        _background(
            *(CapacityMonitor(store, settings.broker_id, each).run() for each in capacities(broker.kind, settings)),
            membership.broker.run(owner.work),
            membership.fleet.run(partial(_fleet_work, wakeups=wakeups, sender=sender, taken_in=owner.taken_in)),
            membership.registration.run(),
            registry.refused_sign_ins.run(),
            ChangePoller(store, wakeups).run(),
            PositionNotes(store, wakeups, settings.data_dir, shared=settings.database is not None).run(),
            renewal.run(),
        )
    )
    return Workers(owner, sender)


async def _fleet_work(store: Store, wakeups: Wakeups, sender: WebhookSender, taken_in: TakenIn) -> None:
    """Do what one gateway of the registry does for all devices, until cancelled; ``store`` checks the lease."""
    async with asyncio.TaskGroup() as group:
        for each in (
            ExpiryWorker(store).run(),
            KeyDelivery(store).run(),
            AwayBrokers(store).run(),
            JobWorker(store, taken_in).run(),
            WebhookWorker(store, wakeups, sender).run(),
        ):
            group.create_task(each)


def _readiness(registry: Registry, broker: Broker, workers: Workers, renewal: Renewal) -> ReadinessCheck:
    return ReadinessCheck(
        registry.store,
        workers.owner,
        registry.membership,
        renewal.certificates,
        broker_kind=broker.kind,
        broker_trouble=broker.trouble,
    )


def _services(
    settings: Settings, registry: Registry, broker: Broker, workers: Workers, readiness: ReadinessCheck
) -> Services:
    """Return what the HTTP API needs of the other parts."""
    return Services(
        store=registry.store,
        topics=registry.topics,
        broker_address=lambda: (broker.advertised.host, broker.advertised.port, broker.tls),
        synced=partial(_synced, registry),
        readiness=readiness.report,
        scrape=Scrape(registry.metrics, registry.store, settings.data_dir, readiness.report).text,
        metrics=registry.metrics,
        sign_in_refused=registry.refused_sign_ins.note,
        people=_people(settings, registry.store),
        taken_in=workers.owner.taken_in,
        wakeups=registry.wakeups,
        streams=StreamLimiter(StreamLimits(settings.event_streams_per_key, settings.event_streams)),
        sender=workers.webhook_sender,
        options=HttpOptions(
            max_body_bytes=settings.max_body_bytes,
            rate_limit_per_minute=settings.rate_limit_per_minute,
            refused_credentials_per_minute=settings.refused_credentials_per_minute,
            bind_broker_wait_seconds=settings.bind_broker_wait_seconds,
            cancel_broker_wait_seconds=settings.cancel_broker_wait_seconds,
            allowed_hosts=settings.allowed_hosts,
            serves_page=settings.http_page,
            serves_docs=settings.http_docs,
            device_certificates=settings.http_client_ca_file is not None,
            metrics_token=shared_secret(settings.metrics_token_file) if settings.metrics_token_file else None,
        ),
    )


def _people(settings: Settings, store: Store) -> People | None:
    """Return who signs in with OpenID Connect, if people do."""
    if settings.oidc_issuer is None:
        return None
    from gateway.http.sign_in.people import people_of  # noqa: PLC0415 - loads an HTTP client

    return people_of(store, settings)


async def _synced(registry: Registry, device_pk: int, seconds: float) -> bool:
    """Wait until a device can connect with a new token at its home, or at each broker that has an owner.

    Return ``False`` if that takes longer, or cannot be known.
    """
    store = registry.store
    if not await registry.wakeups.synced(store, device_pk, seconds):
        return False
    return await store.read_small(partial(_knows_tokens, device_pk=device_pk, instant=store.context.clock()))


def _knows_tokens(view: View, device_pk: int, instant: int) -> bool:
    awaited, home = broker_sql.awaited(view, instant), home_sql.of(view, device_pk)
    serving = awaited if home is None else [each for each in awaited if each.pk == home]
    return bool(serving) and all(each.knows_tokens for each in serving)


async def _serve_http(
    stack: AsyncExitStack, settings: Settings, services: Services, certificate: ServerCertificate | None
) -> HttpServer:
    return await stack.enter_async_context(
        HttpServer(
            build(services),
            settings.http.host,
            settings.http.port,
            certificate=certificate,
            limits=ConnectionLimits(settings.http_connections, settings.http_connections_per_address),
            stopping=services.streams.close,
        )
    )


def certificates(settings: Settings) -> tuple[ServerCertificate | None, ServerCertificate | None]:
    """What the listeners of HTTP and of the embedded broker show, if they speak TLS.

    Raises:
        CertificateError: a file cannot be used.
    """
    http = mqtt = None
    if settings.http_cert_file and settings.http_key_file:
        asked = settings.http_client_ca_file
        files = Files(settings.http_cert_file, settings.http_key_file, asked, client_required=False)
        http = ServerCertificate("http", files, hsts_seconds=settings.http_hsts_seconds)
    if settings.mqtt_cert_file and settings.mqtt_key_file:
        files = Files(settings.mqtt_cert_file, settings.mqtt_key_file, settings.mqtt_client_ca_file)
        mqtt = ServerCertificate("mqtt", files)
    return http, mqtt


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
