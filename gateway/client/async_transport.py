"""Requests of the client for asyncio. ``scripts/sync_client.py`` makes ``sync_transport.py`` of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel

from gateway.client.arguments import Json, given, in_query
from gateway.client.errors import refusal

if TYPE_CHECKING:
    from ssl import SSLContext

T = TypeVar("T", bound=BaseModel)

TIMEOUT_SECONDS: Final = 60.0
SILENCE_SECONDS: Final = 45.0
"""An event stream sends something every 15 s."""


class AsyncTransport:
    """Sends requests with one credential and reads answers into models."""

    def __init__(
        self, url: str, key: str, *, timeout: float = TIMEOUT_SECONDS, verify: SSLContext | bool = True
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, verify=verify)

    @classmethod
    def over(cls, http: httpx.AsyncClient) -> Self:
        """Return a client that sends by this one of httpx, which knows the base URL and the credential."""
        client = cls.__new__(cls)
        client.http = http
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def request(
        self, method: str, url: str, *, query: Json | None = None, body: Json | None = None, once: str | None = None
    ) -> httpx.Response:
        """Send a request and return the answer; ``once`` is its ``Idempotency-Key``.

        Raises:
            ApiError: the gateway refuses.
        """
        headers = {} if once is None else {"Idempotency-Key": once}
        response = await self.http.request(method, url, params=in_query(query or {}), json=body, headers=headers)
        if not response.is_success:
            raise refusal(response)
        return response

    async def lines(self, url: str, headers: dict[str, str], **query: Any) -> AsyncIterator[str]:
        """Return the lines of a stream until it ends.

        Raises:
            ApiError: the gateway refuses.
            httpx.TransportError: the connection was lost.
        """
        parameters = in_query(given(**query))
        async with self.http.stream(
            "GET", url, params=parameters, headers=headers, timeout=SILENCE_SECONDS
        ) as response:
            if not response.is_success:
                await response.aread()
                raise refusal(response)
            async for line in response.aiter_lines():
                yield line

    async def _get(self, kind: type[T], url: str, **query: Any) -> T:
        return kind.model_validate_json((await self.request("GET", url, query=given(**query))).content)

    async def _post(self, kind: type[T], url: str, body: Json, once: str | None = None) -> T:
        return kind.model_validate_json((await self.request("POST", url, body=body, once=once)).content)

    async def _patch(self, kind: type[T], url: str, body: Json) -> T:
        return kind.model_validate_json((await self.request("PATCH", url, body=body)).content)

    async def _delete(self, kind: type[T], url: str) -> T:
        return kind.model_validate_json((await self.request("DELETE", url)).content)
