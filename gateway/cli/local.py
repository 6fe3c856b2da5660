"""The API inside this process, on a data directory: for who can read that, whether a gateway runs there or not.

It is the very application that ``gateway serve`` serves, with its checks and its words; only the question who calls has
another answer: ``cli``, who may do everything. SQLite takes a second writer, and a running gateway notices within a
quarter of a second what was committed here (:mod:`gateway.workers.change_poller`). Without one, what is for the broker
waits.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Final

import click
import httpx

from gateway.bootstrap import rules_of, settled
from gateway.cli.asgi_transport import StreamingTransport
from gateway.cli.server_trust import trusting
from gateway.core import ids
from gateway.core.addresses import Address, BrokerUrl
from gateway.core.credentials import SCOPES
from gateway.core.received_json import parse_json
from gateway.core.topics import Topics
from gateway.domain import backlog
from gateway.errors import NotFoundError, UnavailableError
from gateway.http.app import build
from gateway.http.callers import ApiKeyCaller
from gateway.http.services import HttpOptions, Services
from gateway.runtime import endpoint_file
from gateway.runtime.sealing import vault_of
from gateway.store import Context, Store, View, device_sql, key_sql, open_existing
from gateway.store.event_sql import CLI
from gateway.store.wakeups import Wakeups
from gateway.webhooks.sender import WebhookSender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.datastructures import Headers

    from gateway.http.callers import Caller
    from gateway.runtime.endpoint_file import Endpoints
    from gateway.settings.loading import Settings

ACTOR: Final = CLI
_LOOK_SECONDS: Final = 0.05
_READY_SECONDS: Final = 2.0


@asynccontextmanager
async def in_process(settings: Settings, project: str | None, device: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the API on this data directory.

    Raises:
        NotFoundError: there is no registry, or no such project.
        click.UsageError: there are several projects, and none is named.
    """
    with closing(open_existing(settings.registry)) as connection:
        gateway_id = key_sql.meta(View(connection), "gateway_id") or ACTOR
    with settled(settings, vault_of(settings.encryption_key_file)):
        async with _served(settings, gateway_id, project, device) as client:
            yield client


@asynccontextmanager
async def _served(
    settings: Settings, gateway_id: str, project: str | None, device: str | None
) -> AsyncIterator[httpx.AsyncClient]:
    context = Context(rules=rules_of(settings, gateway_id), vault=vault_of(settings.encryption_key_file))
    async with Store(settings.registry, context) as store:
        project_id = await store.read(lambda view: _project(view, project, device))
        wakeups = Wakeups()
        worker = asyncio.create_task(_ring(wakeups))
        try:
            app = build(_services(settings, store, wakeups), authenticate=_as_cli(project_id))
            transport = StreamingTransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                yield client
        finally:
            worker.cancel()


def _project(view: View, wanted: str | None, device: str | None) -> str:
    if wanted is not None:
        return key_sql.require_project(view, wanted).id
    projects = key_sql.projects(view)
    if not projects:
        raise NotFoundError("There is no project yet. Make one: gateway projects create NAME")
    if device is None:
        return _the_one(projects, "There are several projects")
    having = [row for row in projects if _has(view, row.id, device)]
    return _the_one(having or projects[:1], f"Several projects have a device '{device[:80]}'")


def _the_one(projects: list[key_sql.ProjectRecord], otherwise: str) -> str:
    if len(projects) > 1:
        known = ", ".join(f"{row.id} ({row.name})" for row in projects)
        raise click.UsageError(f"{otherwise}: name one with --project. They are {known}.")
    return projects[0].id


def _has(view: View, project_id: str, device: str) -> bool:
    by_id = ids.is_id(ids.DEVICE, device)
    row = (device_sql.any_of_project if by_id else device_sql.by_serial)(view, project_id, device)
    return row is not None


def _as_cli(project_id: str) -> Any:
    async def authenticate(services: Services, headers: Headers) -> Caller:
        del headers
        return ApiKeyCaller(ACTOR, project_id, frozenset(SCOPES), services.store.context.clock())

    return authenticate


def _services(settings: Settings, store: Store, wakeups: Wakeups) -> Services:
    found = endpoint_file.read(settings.data_dir)

    def broker() -> tuple[str, int, bool]:
        address, tls = (found.broker, found.tls) if found else _advertised(settings)
        return address.host, address.port, tls

    async def synced(device_pk: int, seconds: float) -> bool:
        return found is not None and await wakeups.synced(store, device_pk, seconds)

    async def taken_in(seconds: float) -> bool:
        return found is not None and await backlog.ask(store, seconds)

    return Services(
        store=store,
        topics=Topics(settings.topic_prefix),
        broker_address=broker,
        synced=synced,
        readiness=lambda: _readiness(found),
        taken_in=taken_in,
        sender=WebhookSender(
            allow_private=settings.webhook_allow_private, allow_loopback=settings.webhook_allow_loopback
        ),
        options=HttpOptions(
            max_body_bytes=settings.max_body_bytes,
            rate_limit_per_minute=0,
            bind_broker_wait_seconds=settings.bind_broker_wait_seconds,
            cancel_broker_wait_seconds=settings.cancel_broker_wait_seconds,
        ),
    )


def _advertised(settings: Settings) -> tuple[Address, bool]:
    """Return the broker address that a gateway with these settings would give to devices."""
    upstream = settings.broker if isinstance(settings.broker, BrokerUrl) else None
    tls = upstream is not None and upstream.tls if settings.mqtt_tls_advertise is None else settings.mqtt_tls_advertise
    return settings.mqtt_advertise or (upstream.address if upstream else settings.mqtt), tls


async def _readiness(found: Endpoints | None) -> dict[str, Any]:
    """Return what the gateway that runs on this data directory says.

    Raises:
        NotFoundError: none runs.
        UnavailableError: none answers.
    """
    if found is None:
        raise NotFoundError("Readiness is told by a gateway that serves: GET /ready.")
    try:
        async with httpx.AsyncClient(verify=trusting(None, found.certificate), timeout=_READY_SECONDS) as client:
            facts: dict[str, Any] = parse_json((await client.get(f"{found.http_url}/ready")).content)
    except (httpx.HTTPError, ValueError) as error:
        raise UnavailableError(f"No gateway answers at {found.http_url}.") from error
    return facts


async def _ring(wakeups: Wakeups) -> None:
    """Do nothing: the work of another process is noticed by polling."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        wakeups.notify_progress()
