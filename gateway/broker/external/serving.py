"""Start of the auth endpoint, from the settings. It listens before the gateway connects to the broker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.external.admissions import Admissions
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.disconnect_clients import ClientDisconnector, disconnector_of
from gateway.broker.external.endpoint import AuthEndpoint
from gateway.broker.external.secret import FILE_NAME, shared_secret
from gateway.broker.external.session_sync import NOT_CUT, SessionSync
from gateway.broker.service_accounts import Accounts, service_accounts
from gateway.core.addresses import BrokerUrl
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.http.server.server import HttpServer
from gateway.settings.loading import Settings
from gateway.store import Store
from gateway.tls.certificates import ServerCertificate, client_context

log = structlog.get_logger()


async def asked_access(
    settings: Settings,
    store: Store,
    probes: ProbeAccounts,
    certificate: ServerCertificate | None,
    stack: AsyncExitStack,
    refused: Callable[[RefusedSignIn], None] = lambda _: None,
    owned: Store | None = None,
) -> SessionSync:
    """Listen at ``broker_auth`` until ``stack`` ends; on loopback without TLS, beyond it with ``certificate``.

    Raises:
        UnavailableError: it cannot listen there, or a file cannot be used.
    """
    at, admissions = settings.broker_auth, Admissions()
    if at is None:
        raise ValueError("broker_auth is not set")
    secret = shared_secret(settings.broker_auth_secret_file or settings.data_dir / FILE_NAME)
    own_id = store.context.rules.gateway_id
    judge = AuthDecisions(
        store,
        _accounts(settings, probes),
        admissions,
        own_id=own_id,
        prefix=settings.topic_prefix,
        refused=lambda: refused(RefusedSignIn("mqtt", "unknown", "")),  # the broker does not say where its client is
    )
    server = HttpServer(
        AuthEndpoint(judge, secret, lambda address: refused(RefusedSignIn("broker_auth", "unknown", address))),
        at.host,
        at.port,
        certificate=None if at.is_loopback else certificate,
        setting="broker_auth",
    )
    await stack.enter_async_context(server)
    log.info("broker_auth.listening", url=server.url)
    if settings.broker_api_url is None:
        log.warning("broker.sessions_not_cut", message=NOT_CUT)
    return SessionSync(owned or store, admissions, _cutter(settings))


def _accounts(settings: Settings, probes: ProbeAccounts) -> Accounts:
    url = settings.broker
    if not isinstance(url, BrokerUrl) or url.username is None or url.password is None:
        raise ValueError("broker has no user and password")  # the settings refuse that
    return service_accounts(url.password.get_secret_value(), probes, gateway_user=url.username)


def _cutter(settings: Settings) -> ClientDisconnector | None:
    api = settings.broker_api_url
    if api is None:
        return None
    tls = client_context(settings.broker_ca_file, None, None) if api.scheme == "https" else None
    return disconnector_of(api, tls)
