"""The endpoint where brokers ask, over a socket, in front of a registry on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from gateway.broker.access_rules import Role
from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.external.admissions import Admissions
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.endpoint import AuthEndpoint
from gateway.broker.service_accounts import ServiceAccount, service_accounts
from gateway.http.server.server import HttpServer
from gateway.store import Store

SECRET = "bsec_of-the-tests-0123456789abcdef"
GATEWAY_PASSWORD = "gateway-password"
INTEGRATOR_PASSWORD = "integrator-password"
PROBES = ProbeAccounts(reader="doctor-password", device="doctor-device-password")


def make_accounts() -> dict[str, ServiceAccount]:
    """Those of a gateway that runs, and an integrator."""
    integrator = ServiceAccount(Role.INTEGRATOR, INTEGRATOR_PASSWORD)
    return {**service_accounts(GATEWAY_PASSWORD, PROBES), "integrator": integrator}


@dataclass(frozen=True)
class Endpoint:
    """Where it is, a client for it, and whom it let in."""

    url: str
    http: httpx.AsyncClient
    admissions: Admissions

    async def ask(self, path: str, *, secret: str = SECRET, **request: object) -> httpx.Response:
        """POST a question with the secret in the path."""
        return await self.http.post(f"/{secret}/{path}", **request)  # type: ignore[arg-type] # httpx's own keywords


@asynccontextmanager
async def serve_auth_endpoint(
    store: Store, *, gateway_id: str, prefix: str = "", port: int = 0, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Endpoint]:
    """Serve it for as long as the block runs."""
    accounts, admissions = make_accounts(), Admissions(clock)
    door = AuthEndpoint(AuthDecisions(store, accounts, admissions, own_id=gateway_id, prefix=prefix), SECRET)
    async with HttpServer(door, "127.0.0.1", port) as server, httpx.AsyncClient(base_url=server.url) as http:
        yield Endpoint(server.url, http, admissions)
