"""HTTP towards the provider: JSON with limits on time and size, no redirects, no proxy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from gateway import __version__
from gateway.core.received_json import parse_json
from gateway.core.redaction import redact
from gateway.oidc.options import ProviderUnavailableError

SECONDS: Final = 5.0
MOST_BYTES: Final = 1_048_576
_SERVER_ERROR: Final = 500
_HEAD: Final = {"Accept": "application/json", "User-Agent": f"device-gateway/{__version__}"}


class ProviderAnswer(NamedTuple):
    """An answer of the provider: status, JSON object (empty for another body), and its ``Date``, if given."""

    status: int
    body: dict[str, Any]
    date: str | None


class ProviderHttp:
    """Sends single requests to the provider."""

    def __init__(self, ca_file: Path | None) -> None:
        self._ca_file = ca_file

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> ProviderAnswer:
        """Get a JSON object.

        Raises:
            ProviderUnavailableError: it did not come, or is too large.
        """
        return await self._send(httpx.Request("GET", url, headers={**_HEAD, **(headers or {})}))

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> ProviderAnswer:
        """Post a form, and get a JSON object.

        Raises:
            ProviderUnavailableError: it did not come, or is too large.
        """
        return await self._send(httpx.Request("POST", url, headers={**_HEAD, **(headers or {})}, data=dict(form)))

    async def _send(self, request: httpx.Request) -> ProviderAnswer:
        try:
            async with httpx.AsyncClient(
                verify=self._tls, timeout=SECONDS, follow_redirects=False, trust_env=False
            ) as client:
                response = await client.send(request, stream=True)
                try:
                    return _answer(response, await _content(response))
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = redact(str(error)) or type(error).__name__
            raise ProviderUnavailableError(
                f"The provider cannot be reached at {_place(request.url)}: {reason}."
            ) from error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = httpx.create_ssl_context()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ProviderUnavailableError(
                    f"The file {self._ca_file} of the setting 'oidc_ca_file' cannot be used ({error.strerror}). Name a "
                    "PEM file with the authority's certificate."
                ) from error
        return context


async def _content(response: httpx.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise ProviderUnavailableError(f"The provider's answer at {_place(response.url)} is too large.")
    return bytes(content)


def _answer(response: httpx.Response, content: bytes) -> ProviderAnswer:
    if response.status_code >= _SERVER_ERROR:
        raise ProviderUnavailableError(f"The provider answers {response.status_code} at {_place(response.url)}.")
    try:
        body = parse_json(content)
    except ValueError:
        body = None
    return ProviderAnswer(response.status_code, body if isinstance(body, dict) else {}, response.headers.get("date"))


def _place(url: httpx.URL) -> str:
    """Return an address as it may be logged, without its query."""
    return str(url.copy_with(query=None))
