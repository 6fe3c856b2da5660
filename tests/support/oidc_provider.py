"""A real OpenID Connect provider in a separate process: ``oidc-provider-mock``, and what that lacks.

``tests/support/oidc_server.py`` is its program.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

Json = dict[str, Any]


@dataclass
class OidcProvider:
    """The provider, as a test steers it."""

    issuer: str
    http: httpx.AsyncClient
    process: asyncio.subprocess.Process

    async def register(self, redirect_uri: str) -> tuple[str, str]:
        """Make a client for this address alone; its id and secret."""
        answer = await self.http.post("/oauth2/clients", json={"redirect_uris": [redirect_uri]})
        assert answer.status_code == 201, answer.text
        return answer.json()["client_id"], answer.json()["client_secret"]

    async def person(self, sub: str, **claims: Any) -> None:
        """Make a person, or give one other claims."""
        assert (await self.http.put(f"/users/{sub}", json=claims)).status_code == 204

    async def control(self, what: str, **facts: Any) -> Json:
        """Change how the provider behaves from now on."""
        answer = await self.http.post(f"/control/{what}", json=facts)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def sign(self, claims: Json, **header: Any) -> str:
        """A token with these claims and this header, by the provider's present key."""
        token: str = (await self.control("sign", claims=claims, header=header))["token"]
        return token

    async def approve(self, address: str, sub: str) -> str:
        """Sign in at the provider as this person, as a browser would; where that sends the browser then."""
        answer = await self.http.post(address, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def stop(self) -> None:
        """Take it down."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.wait()


@asynccontextmanager
async def provider() -> AsyncIterator[OidcProvider]:
    """A new provider, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.oidc_server"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
    )
    assert process.stdout is not None
    issuer = (await process.stdout.readline()).decode().strip()
    assert issuer.startswith("http://127.0.0.1:"), "the provider did not start"
    async with httpx.AsyncClient(base_url=issuer, trust_env=False) as http:
        running = OidcProvider(issuer, http, process)
        try:
            yield running
        finally:
            await running.stop()
