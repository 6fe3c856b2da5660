"""A real OpenID Connect provider in a separate process: ``oidc-provider-mock``, and what that lacks.

``tests/support/oidc_server.py`` is its program.
"""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

NO_TLS = ssl.create_default_context()  # costly to make, and never used

Json = dict[str, Any]

AS_IT_SHOULD: Json = {"metadata": {}, "callback": {}, "id_token": {}, "token": {}, "status": {}}


@dataclass
class OidcProvider:
    """The provider, as a test steers it."""

    issuer: str
    http: httpx.AsyncClient

    async def register(self, redirect_uri: str) -> tuple[str, str]:
        """Make a client for this address alone; its id and secret."""
        answer = await self.http.post("/oauth2/clients", json={"redirect_uris": [redirect_uri]})
        assert answer.status_code == 201, answer.text
        return answer.json()["client_id"], answer.json()["client_secret"]

    async def person(self, sub: str, **claims: Any) -> None:
        """Make a person, or give one other claims."""
        assert (await self.http.put(f"/users/{sub}", json=claims)).status_code == 204

    async def revoke(self, sub: str) -> None:
        """Take back all tokens of a person, as when the account is closed."""
        assert (await self.http.post(f"/users/{sub}/revoke-tokens")).status_code == 204

    async def control(self, what: str, **facts: Any) -> Json:
        """Have the provider do something that only its operator can."""
        answer = await self.http.post(f"/control/{what}", json=facts)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def behave(self, **how: Json) -> None:
        """Behave like this from now on, and in all else as it should."""
        await self.control("behave", **{**AS_IT_SHOULD, **how})

    async def sign(self, claims: Json, **header: Any) -> str:
        """A token with these claims and this header, by the provider's present key."""
        token: str = (await self.control("sign", claims=claims, header=header))["token"]
        return token

    async def approve(self, address: str, sub: str) -> str:
        """Sign in at the provider as this person, as a browser would; where that sends the browser then."""
        answer = await self.http.post(address, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


@contextmanager
def provider_process() -> Iterator[str]:
    """Run a provider until the end of the block; its issuer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.oidc_server"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
        text=True,
    )
    try:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer.startswith("http://127.0.0.1:"), "the provider did not start"
        yield issuer
    finally:
        process.terminate()
        process.communicate()


def client_of(issuer: str) -> httpx.AsyncClient:
    """A client of the provider at this address."""
    return httpx.AsyncClient(base_url=issuer, trust_env=False, verify=NO_TLS, timeout=30)
