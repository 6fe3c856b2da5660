"""The composition root: everything is made here and handed on as arguments; start, run and stop read in this order."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.announce import announce, announce_readiness
from gateway.bootstrap import first_start, rules_of
from gateway.broker import doctor_accounts
from gateway.broker.access_sync import AccessSyncer, MosquittoAccess, first_uses_at, knows_new_tokens
from gateway.broker.embedded.capacity import CapacityMonitor
from gateway.broker.external.secret import shared_secret
from gateway.broker.mosquitto.file_watch import PasswordFileWatch
from gateway.broker.selection import broker_of
from gateway.core.addresses import Address
from gateway.core.backoff import Pauses
from gateway.core.topics import Topics
from gateway.domain.backlog import BacklogRequests
from gateway.domain.presence import PresenceWorker
from gateway.domain.refused_sign_ins import RefusedSignIns
from gateway.errors import UnavailableError
from gateway.http.app import build
from gateway.http.server.connection_limit import ConnectionLimits
from gateway.http.server.server import HttpServer
from gateway.http.services import Services
from gateway.http.stream_limit import StreamLimiter, StreamLimits
from gateway.mqtt.connection import BrokerConnection, ConnectionObserver
from gateway.observability.metrics import Metrics
from gateway.observability.metrics_endpoint import Scrape
from gateway.outbound.outlets import outlets
from gateway.readiness import Readiness
from gateway.running import Running
from gateway.runtime import build_info, gc_tuning
from gateway.runtime.endpoint_file import Endpoints, published
from gateway.runtime.loop_priority import LoopPriority
from gateway.runtime.private_files import is_open_to_others, require_own_directory
from gateway.runtime.sealing import vault_of
from gateway.runtime.tracing import NO_TRACER, Tracer
from gateway.settings.loading import Loaded, Settings
from gateway.settings.types import EMBEDDED
from gateway.store import Context, Store, account_sql, key_sql
from gateway.store.sqlite.lock import exclusive
from gateway.store.wakeups import Wakeups
from gateway.tls.certificates import Files, Renewal, ServerCertificate
from gateway.webhooks.sender import WebhookSender
from gateway.webhooks.worker import WebhookWorker
from gateway.workers.change_poller import ChangePoller
from gateway.workers.expiry import ExpiryWorker
from gateway.workers.position_notes import PositionNotes

log = structlog.get_logger()

SWITCH_SECONDS: Final = 0.000_5
"""How long one thread may keep others from running: at Python's 5 ms a request would wait for a busy writer that long
at each of its statements, since SQLite's library gives the interpreter away while it works."""


async def serve(loaded: Loaded, precedence: LoopPriority) -> int:
    """Run until SIGTERM or SIGINT, in the loop of ``precedence``; the exit code."""
    _open_as_many_files_as_allowed()
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with running(loaded.settings, precedence) as gateway:
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


async def _tell_of_accounts(store: Store) -> None:
    """Say which accounts read all projects, where there are several: those from before accounts had one do."""
    names, projects = await store.read(lambda view: (account_sql.reading_all(view), len(key_sql.projects(view))))
    if names and projects > 1:
        log.warning(
            "broker.accounts_read_all_projects",
            accounts=names,
            message=f"{', '.join(names)} may read the devices of all {projects} projects. Where that is not meant, "
            "make accounts with 'gateway accounts create NAME --project ID', and revoke these.",
        )


def _open_as_many_files_as_allowed() -> None:
    """Each connection is one; the usual soft limit of 1,024 is for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@asynccontextmanager
async def running(settings: Settings, precedence: LoopPriority | None = None) -> AsyncIterator[Running]:
    """Start every part, hand over the gateway, and stop every part in the opposite order.

    ``precedence`` is the one whose loop this runs in, if it is one of those.

    Raises:
        GatewayError: it cannot start; the message says what to do.
    """
    async with AsyncExitStack() as stack:
        _check_data_directory(settings.data_dir)
        stack.enter_context(exclusive(settings.data_dir))
        gateway_id, project_id = first_start(settings, to_serve=True)
        tracer = tracer_of(settings, gateway_id)
        stack.callback(tracer.stop)
        bells, topics, metrics = Wakeups(), Topics(settings.topic_prefix), Metrics()
        store = await stack.enter_async_context(
            Store(
                settings.data_dir,
                Context(rules=rules_of(settings, gateway_id), vault=vault_of(settings.encryption_key_file)),
                on_commit=bells.notify_outbox,
                on_news=bells.notify_events,
                on_measures=metrics.take,
                tracer=tracer,
                precedence=precedence,
            )
        )
        accounts = doctor_accounts.ProbeAccounts().of(settings)
        stack.enter_context(doctor_accounts.published(settings.data_dir, accounts))
        http_tls, mqtt_tls = certificates(settings)
        renewal = Renewal(each for each in (http_tls, mqtt_tls) if each)
        await _tell_of_accounts(store)
        sign_ins = RefusedSignIns(store, metrics.sign_in_refused)
        broker = await broker_of(
            settings, store, accounts, mqtt_tls, stack, http_certificate=http_tls, refused=sign_ins.note
        )
        keeper = AccessSyncer(store, bells, broker.access)

        def connected() -> None:
            metrics.connected()
            bells.access_changed()  # it may be a broker that has just started, with who knows which password file

        async def synced(device_pk: int, seconds: float) -> bool:
            return await bells.synced(store, device_pk, seconds) and knows_new_tokens(broker.access)

        async def listening() -> None:
            await presence.forgive()

        connection = BrokerConnection(
            broker.upstream,
            auto_version=settings.mqtt_version == "auto",
            store=store,
            topics=topics,
            bells=bells,
            notices=ConnectionObserver(
                connected, metrics.acknowledged, metrics.refused, first_uses_at(broker.access), listening
            ),
            outlets=outlets(settings, store, topics, bells),
            pauses=Pauses(compare_seconds=settings.compare_seconds),
        )
        presence = PresenceWorker(store, connection.barrier.passed, lambda: connection.status.connected)
        streams = StreamLimiter(StreamLimits(settings.event_streams_per_key, settings.event_streams))
        sender = WebhookSender(
            allow_private=settings.webhook_allow_private, allow_loopback=settings.webhook_allow_loopback
        )
        watch = [CapacityMonitor(store).run()] if broker.kind == EMBEDDED else []
        if isinstance(broker.access, MosquittoAccess):
            watch.append(PasswordFileWatch(broker.access.file, bells, broker.access.people).run())
            watch.append(broker.access.first_uses.run(connection.barrier.passed))
        await stack.enter_async_context(
            _background(
                *watch,
                keeper.run(),
                connection.run(),
                ExpiryWorker(store).run(),
                sign_ins.run(),
                presence.run(),
                ChangePoller(store, bells).run(),
                PositionNotes(store, bells, settings.data_dir).run(),
                BacklogRequests(store, bells, connection.barrier.passed).run(),
                WebhookWorker(store, bells, sender).run(),
                renewal.run(),
            )
        )
        readiness = Readiness(
            store, connection, keeper, renewal.certificates, broker_kind=broker.kind, broker_trouble=broker.trouble
        )
        services = Services(
            store=store,
            topics=topics,
            broker_address=lambda: (broker.advertised.host, broker.advertised.port, broker.tls),
            synced=synced,
            readiness=readiness.report,
            scrape=Scrape(metrics, store, settings.data_dir, readiness.report).text,
            metrics=metrics,
            sign_in_refused=sign_ins.note,
            metrics_token=shared_secret(settings.metrics_token_file) if settings.metrics_token_file else None,
            max_body_bytes=settings.max_body_bytes,
            allowed_hosts=settings.allowed_hosts,
            serves_page=settings.http_page,
            serves_docs=settings.http_docs,
            device_certificates=settings.http_client_ca_file is not None,
            rate_limit_per_minute=settings.rate_limit_per_minute,
            refused_credentials_per_minute=settings.refused_credentials_per_minute,
            bind_broker_wait_seconds=settings.bind_broker_wait_seconds,
            taken_in=connection.barrier.passed,
            cancel_broker_wait_seconds=settings.cancel_broker_wait_seconds,
            bells=bells,
            streams=streams,
            sender=sender,
        )
        http = await stack.enter_async_context(
            HttpServer(
                build(services),
                settings.http.host,
                settings.http.port,
                certificate=http_tls,
                places=ConnectionLimits(settings.http_connections, settings.http_connections_per_address),
                stopping=streams.close,
            )
        )
        inner = Address(broker.upstream.host, broker.upstream.port) if settings.own_broker else None
        places = Endpoints(
            http.url,
            broker.advertised,
            broker.tls,
            settings.http_cert_file,
            inner,
            broker.pinned,
            broker.kind,
            build_info.described(),
        )
        stack.enter_context(published(settings.data_dir, places))
        at = str(broker.advertised)
        log.info("gateway.started", version=build_info.described(), http=http.url, broker=at, access=broker.access.name)
        yield Running(
            settings,
            store,
            http.url,
            broker.advertised,
            broker.tls,
            gateway_id,
            project_id,
            keeper=keeper,
            connection=connection,
            topics=topics,
            upstream=broker.upstream,
            bells=bells,
            renewal=renewal,
            broker_kind=broker.kind,
            readiness=readiness,
        )


def tracer_of(settings: Settings, gateway_id: str) -> Tracer:
    """Who is told of traces.

    Raises:
        UnavailableError: what it takes is not installed.
    """
    if settings.otlp_endpoint is None:
        return NO_TRACER
    try:
        from gateway.observability.otel import OtelTracer  # noqa: PLC0415 - an optional dependency, and not a light one
    except ImportError as error:
        raise UnavailableError(
            f"otlp_endpoint needs packages that are not installed ({error.name}): pip install 'device-gateway[otel]'."
        ) from error
    return OtelTracer(settings.otlp_endpoint, gateway_id)


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
