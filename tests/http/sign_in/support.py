"""A gateway that people sign in at, a real provider, and browsers that are only an HTTP client with cookies."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.core.credentials import csrf_token
from gateway.core.roles import Role
from gateway.domain import sessions
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.domain.sessions import Grant, Person
from gateway.oidc.options import OidcOptions
from gateway.settings.role_rules import RoleRule
from gateway.store.session_sql import SessionRecord
from tests.http.support import TLS, Api, Client, Json, serving
from tests.support.oidc_provider import OidcProvider, client_of

HOUR_MS = 3_600_000
CHECK_MS = 300_000
RULES = (
    RoleRule("viewers", "one", "viewer"),
    RoleRule("operators", "one", "operator"),
    RoleRule("admins", "one", "admin"),
)
NOWHERE = "http://127.0.0.1:9/"


def options(page_url: str, **given: Any) -> OidcOptions:
    """Options of a gateway at this address; the provider is not there unless one is given."""
    told: Json = {"issuer": NOWHERE, "client_id": "gateway", "client_secret": "hush", "rules": RULES}
    return OidcOptions(page_url=page_url, **{**told, **given})


@dataclass
class Session:
    """A person's session, begun without a provider: its secret, and a client with its cookie."""

    secret: str
    record: SessionRecord
    client: Client
    changes: dict[str, str]
    """Headers of a change."""


async def in_session(api: Api, role: Role = "operator", *, sub: str = "ann", sid: str | None = None) -> Session:
    """Begin a session as the sign-in does after the provider has vouched."""
    person, grant = Person(sub, f"{sub.title()} Example", sid), Grant(api.project_id, role)
    state = f"state of {sub} {time.time_ns()}"
    tokens = '{"id_token": null, "access_token": null, "refresh_token": null}'
    started = await api.store.write(lambda tx: sessions.start(tx, person, grant, HOUR_MS, tokens=tokens, state=state))
    client = with_cookie(api, started.secret)
    return Session(started.secret, started.session, client, {"X-CSRF-Token": csrf_token(started.secret)})


def with_cookie(api: Api, secret: str) -> Client:
    """A client with the cookie of this session."""
    client = Client(base_url=api.url, headers={"Cookie": f"gateway_session={secret}"}, timeout=30, verify=TLS)
    api.clients.append(client)
    return client


@dataclass
class Site:
    """A gateway and its provider."""

    api: Api
    provider: OidcProvider

    @property
    def client_id(self) -> str:
        """The gateway's id at the provider."""
        assert self.api.services.people is not None
        return self.api.services.people.options.client_id

    def browser(self) -> httpx.AsyncClient:
        """A browser: it keeps cookies, and follows no redirect by itself."""
        browser = httpx.AsyncClient(base_url=self.api.url, timeout=30, verify=TLS, trust_env=False)
        self.api.clients.append(browser)  # type: ignore[arg-type]
        return browser

    async def to_callback(self, browser: httpx.AsyncClient, sub: str, view: str = "/") -> str:
        """Go through the provider; the address of the callback that the browser is sent to."""
        begun = await browser.get("/auth/login", params={"view": view})
        assert begun.status_code == 303, begun.text
        return await self.provider.approve(begun.headers["location"], sub)

    async def sign_in(self, browser: httpx.AsyncClient, sub: str, view: str = "/") -> str:
        """Sign in; where on the page the browser is in the end."""
        ended = await browser.get(await self.to_callback(browser, sub, view))
        assert ended.status_code == 303, ended.text
        location: str = ended.headers["location"]
        assert location.startswith(f"{self.api.url}/#")
        return location.removeprefix(f"{self.api.url}/#")

    async def signed_in(self, sub: str, **claims: Any) -> httpx.AsyncClient:
        """A browser in which this person has signed in."""
        await self.provider.person(sub, **claims)
        browser = self.browser()
        assert await self.sign_in(browser, sub) == "/"
        return browser


@asynccontextmanager
async def site(
    data_dir: Path, issuer: str, noted: Callable[[RefusedSignIn], None] = lambda _: None, **given: Any
) -> AsyncIterator[Site]:
    """A gateway beside this provider; ``given`` are options of the sign-in, ``noted`` gets refused sign-ins."""
    async with client_of(issuer) as http:
        provider = OidcProvider(issuer, http)
        await provider.behave()

        async def oidc(page_url: str) -> OidcOptions:
            client_id, secret = await provider.register(f"{page_url}/auth/callback")
            told = {"issuer": issuer, "client_id": client_id, "client_secret": secret, **given}
            return options(page_url, **told)

        async with serving(data_dir, oidc=oidc, sign_in_refused=noted) as api:
            yield Site(api, provider)
