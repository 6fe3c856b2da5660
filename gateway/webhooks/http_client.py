"""HTTP client for one webhook delivery: connect only to allowed addresses, send, read the answer (contract, section 5).

Redirects are not followed, no proxy is used, each delivery has its own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import httpcore

from gateway import __version__
from gateway.core.redaction import redact
from gateway.core.webhook_urls import Ip, WebhookUrl, literal, may_connect
from gateway.domain.webhooks import DeliveryOutcome

BODY_BYTES: Final = 16_384
_BODY_SECONDS: Final = 2.0
_BODY_SHOWN: Final = 1_024
_ERROR_SHOWN: Final = 256
_MOST_ADDRESSES: Final = 4
_USER_AGENT: Final = f"device-gateway/{__version__}"


class _RefusedError(Exception):
    """The gateway does not connect there."""


@dataclass(frozen=True)
class DeliveryOptions:
    """Options of a delivery: the time limit of one try, the allowed addresses, and the trusted authorities."""

    seconds: float
    tls: ssl.SSLContext | None
    """For https."""
    allow_private: bool = False
    allow_loopback: bool = False


def default_tls() -> ssl.SSLContext:
    """Return a context with the system's authorities and those of certifi."""
    return httpcore.default_ssl_context()


async def post(target: WebhookUrl, headers: dict[str, str], body: bytes, way: DeliveryOptions) -> DeliveryOutcome:
    """Send it once. Failures of the receiver or the network are not raised: the outcome says them."""
    answer = _Answer()
    try:
        async with asyncio.timeout(way.seconds):
            await _post(target, headers, body, way, answer)
    except TimeoutError:
        return answer.outcome(f"There was no answer within {way.seconds:g} s.")
    except (_RefusedError, httpcore.ConnectError) as error:
        return answer.outcome(f"Could not connect: {_reason(error)}.")
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        return answer.outcome(f"The connection broke: {_reason(error)}.")
    return answer.outcome(None)


async def _post(
    target: WebhookUrl, headers: dict[str, str], body: bytes, way: DeliveryOptions, answer: _Answer
) -> None:
    async with (
        httpcore.AsyncConnectionPool(
            ssl_context=way.tls if target.scheme == "https" else None,
            max_keepalive_connections=0,
            network_backend=_Backend(target, way),
        ) as pool,
        pool.stream("POST", _url(target), headers=_head(target, headers), content=body) as response,
    ):
        answer.status = response.status
        await answer.read(response.aiter_stream())


class _Answer:
    """The answer, as far as it arrived."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._body = bytearray()

    async def read(self, parts: AsyncIterator[bytes]) -> None:
        """Read the beginning of the body. The status is known by then, so a missing body changes nothing."""
        with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
            async with asyncio.timeout(_BODY_SECONDS):
                async for part in parts:
                    self._body += part[: BODY_BYTES - len(self._body)]
                    if len(self._body) >= BODY_BYTES:
                        return

    def outcome(self, problem: str | None) -> DeliveryOutcome:
        """Return the outcome. If a status arrived it decides, and later failures do not matter."""
        if self.status is None:
            return DeliveryOutcome(error=problem)
        return DeliveryOutcome(
            self.status, redact(self._body.decode("utf-8", "replace"))[:_BODY_SHOWN], _refused(self.status)
        )


def _refused(status: int) -> str | None:
    match status // 100:
        case 2:
            return None
        case 3:
            return f"The receiver redirects ({status}), which is not followed. Give the webhook the URL it leads to."
    return f"The receiver answered {status}."


def _reason(error: BaseException) -> str:
    """Return the operating system's reason where there is one: the libraries in between say less."""
    text, cause = str(error), error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
        text = os.strerror(cause.errno)
    return redact(text.strip(". ") or "the other side closed the connection")[:_ERROR_SHOWN]


def _url(target: WebhookUrl) -> httpcore.URL:
    return httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )


def _head(target: WebhookUrl, headers: dict[str, str]) -> list[tuple[str, str]]:
    own = {"Host": target.host_header, "User-Agent": _USER_AGENT, "Content-Type": "application/json", "Accept": "*/*"}
    return [*own.items(), *headers.items()]


class _Backend(httpcore.AnyIOBackend):
    """Connects to the very addresses that were checked. A name is resolved once, so it cannot change its meaning."""

    def __init__(self, target: WebhookUrl, way: DeliveryOptions) -> None:
        self._target = target
        self._way = way

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the allowed addresses of the target."""
        problem: Exception = _RefusedError(
            "the name leads to a private network only, where the gateway sends nothing unless the setting "
            "webhook_allow_private is on (its own machine: webhook_allow_loopback, too)"
        )
        for ip in await self._allowed(host, port):
            try:
                return await super().connect_tcp(str(ip), port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                problem = error
        raise problem

    async def _allowed(self, host: str, port: int) -> Sequence[Ip]:
        given = literal(host)
        found = [given] if given is not None else await _resolve(host, port)
        private, loopback = self._way.allow_private, self._way.allow_loopback
        allowed = [ip for ip in found if may_connect(self._target, ip, allow_private=private, allow_loopback=loopback)]
        return allowed[:_MOST_ADDRESSES]


async def _resolve(host: str, port: int) -> list[Ip]:
    """Return the addresses of a name. The look-up runs in a separate thread, since it can hang."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Ip]] = loop.create_future()

    def settle(addresses: list[Ip]) -> None:
        if not found.done():
            found.set_result(addresses)

    def look_up() -> None:
        addresses = _addresses(host, port)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, addresses)

    threading.Thread(target=look_up, name="webhook-dns", daemon=True).start()
    addresses = await found
    if not addresses:
        raise _RefusedError(f"the name {host} cannot be resolved")
    return addresses


def _addresses(host: str, port: int) -> list[Ip]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    addresses = (literal(str(answer[4][0])) for answer in answers)
    return [ip for ip in dict.fromkeys(addresses) if ip is not None]
