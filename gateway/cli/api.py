"""Access of commands to the API: over HTTP, or the same API inside this process, on the data directory."""

from __future__ import annotations

import asyncio
import functools
import os
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import click

from gateway.cli.connection_errors import CA_VARIABLE, KEY_VARIABLE, URL_VARIABLE, unreached
from gateway.cli.lazy_loading import lazily
from gateway.cli.options import with_settings
from gateway.cli.server_trust import trusting
from gateway.errors import ConflictError, GatewayError, UnavailableError
from gateway.runtime import endpoint_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from ssl import SSLContext

    import httpx

    from gateway.settings.loading import Loaded, Settings
else:
    httpx = lazily("httpx")

T = TypeVar("T")
Json = dict[str, Any]

PAGE: Final = 100
_SECONDS: Final = 60.0


class RefusedError(GatewayError):
    """The API refused, with its own message and ``code``."""

    def __init__(self, code: str, message: str, *, details: Json) -> None:
        super().__init__(message, details=details)
        self.code = code


class ApiClient:
    """Calls the API; refusals are raised."""

    def __init__(self, client: httpx.AsyncClient, *, remote: bool, authority: Path | None = None) -> None:
        from gateway.client import AsyncClient  # noqa: PLC0415 - httpx and the models, not needed for help

        self._gateway = AsyncClient.over(client)
        self._authority = authority
        self.remote = remote
        """Whether a gateway answers over HTTP; otherwise it is the API inside this process."""

    async def send(
        self, method: str, path: str, *, query: Json | None = None, body: Json | None = None
    ) -> httpx.Response:
        """Send a request; return a successful answer.

        Raises:
            RefusedError, ConflictError: the API refuses.
            UnavailableError: no gateway answers.
        """
        with _refusals():
            try:
                return await self._gateway.request(method, path, query=query, body=body)
            except httpx.HTTPError as error:
                raise unreached(str(self._gateway.http.base_url), error, self._authority) from error

    async def lines(self, path: str, headers: dict[str, str], **query: Any) -> AsyncIterator[str]:
        """Yield the lines of a stream until it ends.

        Raises:
            GatewayError: it is refused.
            httpx.TransportError: it was lost, or is silent for longer than its heartbeat allows.
        """
        with _refusals():
            async for line in self._gateway.lines(path, headers, **query):
                yield line

    async def get(self, path: str, **query: Any) -> Json:
        """Return the resource at this path; parameters that are ``None`` are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return _document(await self.send("GET", path, query=given))

    async def post(self, path: str, body: Json | None = None) -> Json:
        """Send a POST."""
        return _document(await self.send("POST", path, body=body or {}))

    async def readiness(self) -> Json | None:
        """Return what ``/ready`` says, ready or not; None when no gateway answers."""
        try:
            facts = _document(await self._gateway.http.get("/ready"))
        except (httpx.HTTPError, UnavailableError):
            return None
        return facts if "broker" in facts else None

    async def patch(self, path: str, body: Json) -> Json:
        """Change the fields in the body."""
        return _document(await self.send("PATCH", path, body=body))

    async def delete(self, path: str) -> Json:
        """Delete the resource."""
        return _document(await self.send("DELETE", path))


def _document(response: httpx.Response) -> Json:
    from gateway.client.errors import document  # noqa: PLC0415 - the same

    with _refusals():
        return document(response)


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise the client's errors as errors of the command line."""
    from gateway.client.errors import UNEXPECTED, ApiError  # noqa: PLC0415 - the same

    try:
        yield
    except ApiError as error:
        if error.code == UNEXPECTED:
            raise UnavailableError(
                f"{error.message.removesuffix(' Check the URL.')} Check {URL_VARIABLE} or --url."
            ) from error
        kind = ConflictError if error.status == httpx.codes.CONFLICT else RefusedError
        raise kind(error.code, error.message, details=error.details) from error


def at(*parts: str) -> str:
    """Return a path of the API; ids are quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


@dataclass(frozen=True)
class Place:
    """Where a command works."""

    settings: Settings
    url: str | None
    project: str | None
    ca_file: Path | None = None

    def run(self, work: Callable[[ApiClient], Awaitable[T]], *, device: str | None = None) -> T:
        """Do some work there. ``device``, an id or a serial number, selects the project where there are several."""
        from gateway.runtime import log  # noqa: PLC0415 - structlog, which is not needed before

        log.configure("warning")
        return asyncio.run(self._run(work, device))

    async def _run(self, work: Callable[[ApiClient], Awaitable[T]], device: str | None) -> T:
        async with self._open(device) as client:
            return await work(ApiClient(client, remote=self._remote() is not None, authority=self.ca_file))

    @asynccontextmanager
    async def _open(self, device: str | None) -> AsyncIterator[httpx.AsyncClient]:
        remote = self._remote()
        if remote is None:
            from gateway.cli.local import in_process  # noqa: PLC0415 - the whole API, which HTTP does not need here

            async with in_process(self.settings, self.project, device) as client:
                yield client
            return
        url, key, tls = remote
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=_SECONDS, verify=tls) as client:
            yield client

    def _remote(self) -> tuple[str, str, SSLContext | bool] | None:
        """Return URL, key and trust for HTTP, or None. HTTP is used with a URL, or with a key where a gateway runs."""
        key, url = os.environ.get(KEY_VARIABLE), self.url
        if url is not None and not key:
            state = "is empty" if key == "" else "is not set"
            raise click.UsageError(
                f"With --url or {URL_VARIABLE}, {KEY_VARIABLE} has to hold an API key, and it {state}."
            )
        if not key:
            return None
        found = endpoint_file.read(self.settings.data_dir)
        by_data_dir = url is None
        url = url or (found.http_url if found else None)
        if url is None:
            return None
        pinned = found.certificate if found and by_data_dir else None
        if self.project is not None:
            raise click.UsageError("Over HTTP the API key says which project: leave --project out.")
        return _checked(url), key, trusting(self.ca_file, pinned)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise click.UsageError(f"--url or {URL_VARIABLE} should be like http://127.0.0.1:8080")
    if parts.path not in ("", "/"):
        origin = f"{parts.scheme}://{parts.netloc}"
        raise click.UsageError(f"--url or {URL_VARIABLE} should have no path: {origin} instead of {url}")
    return url.rstrip("/")


def with_gateway(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``place``, and with the options that choose it."""

    @functools.wraps(function)
    def command(*, loaded: Loaded, url: str | None, project: str | None, ca_file: Path | None, **given: Any) -> Any:
        return function(place=Place(loaded.settings, url, project, ca_file), **given)

    click.option(
        "--ca-file",
        envvar=CA_VARIABLE,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"PEM file with the authority of the gateway's certificate.  [default: {CA_VARIABLE}, or the system's]",
    )(command)
    click.option(
        "--project", metavar="ID", help="Project to work in, id or name; none: that of the device, or the only one."
    )(command)
    click.option(
        "--url",
        envvar=URL_VARIABLE,
        metavar="URL",
        help=f"Work over HTTP, with the API key in {KEY_VARIABLE}.  [default: {URL_VARIABLE}]",
    )(command)
    return with_settings("data_dir")(command)
