"""Outer middleware: gives each request an id, one line in the log, headers, and an answer whatever happens inside."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.core.redaction import redact
from gateway.errors import GatewayError
from gateway.http import auth, errors
from gateway.http.auth_failure_limit import host_of
from gateway.http.body import ClientGoneError
from gateway.http.callers import Caller, DeviceCaller, PersonCaller
from gateway.http.log_limit import StrangerLines
from gateway.http.rate_limit import Quota, RateLimiter
from gateway.http.request_target import HostRules, require_plain_path
from gateway.http.security_headers import HSTS_SECONDS, security_headers
from gateway.http.services import Services
from gateway.runtime import tracing

log = structlog.get_logger()

REQUEST_INFO: Final = "gateway.request_info"
REQUEST_ID: Final = "X-Request-Id"
PIECE_BYTES: Final = 65_536
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_GONE: Final = 499  # as nginx logs them; the client never sees it
_SERVER_ERROR: Final = 500


@dataclass
class RequestInfo:
    """What becomes known of a request, for its log line and the headers of its answer."""

    request_id: str
    client_request_id: str | None
    """The client's own id of this request, if it can stand in a log."""
    client_address: str
    quota: Quota
    template: str = "-"
    caller: Caller | None = None
    status: int = _CLIENT_GONE
    error: str | None = None
    worth_a_line: bool = True
    """Whether it gets a line in the log; metrics count it anyway."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Return the seconds since it began."""
        return time.perf_counter() - self.started


def request_info(scope: Scope) -> RequestInfo:
    """Return the log record of this request."""
    info: RequestInfo = scope[REQUEST_INFO]
    return info


class RequestMiddleware:
    """Outermost layer of the API, pure ASGI."""

    def __init__(self, app: ASGIApp, services: Services, limiter: RateLimiter) -> None:
        self._app = app
        self._services = services
        self._limiter = limiter
        self._failed_auth_lines = StrangerLines(services.store.context.clock)
        self._hosts = HostRules(services.options.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        info = scope[REQUEST_INFO] = RequestInfo(
            _request_id(), _client_request_id(headers), host_of(scope), self._limiter.untouched()
        )
        hsts = scope.get(HSTS_SECONDS, 0)
        parent = tracing.well_formed(headers.get(tracing.HEADER))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                info.status = message["status"]
                message["headers"] = [*message["headers"], *_headers(message["headers"], info, hsts)]
            for piece in _pieces(message):
                await send(piece)

        with (
            structlog.contextvars.bound_contextvars(request_id=info.request_id),
            self._services.store.tracer.begin("HTTP", parent, tracing.Kind.SERVER) as span,
        ):
            try:
                await self._serve(scope, receive, send_with_headers, info)
            finally:
                _tell(span, scope["method"], info)
                if self._is_logged(scope, info):
                    _log(scope["method"], info)
                self._services.metrics.request(scope["method"], info.template, info.status, info.seconds)
            await self._note_use(info)

    def _is_logged(self, scope: Scope, info: RequestInfo) -> bool:
        if info.caller is not None or info.status >= _SERVER_ERROR:
            return info.worth_a_line
        return self._failed_auth_lines.is_written(scope, worth_a_line=info.worth_a_line)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, info: RequestInfo) -> None:
        try:
            self._hosts.require(scope)
            require_plain_path(scope)
            await self._app(scope, receive, send)
        except ClientGoneError:
            pass
        except GatewayError as error:
            info.error = error.code
            await errors.answer(error)(scope, receive, send)
        except Exception:
            log.exception("http.failed", path=info.template)
            unexpected = errors.unexpected(info.request_id)
            info.error = unexpected.code
            await errors.answer(unexpected)(scope, receive, send)

    async def _note_use(self, info: RequestInfo) -> None:
        """Record the use of a key, after the answer, so that the caller does not wait for it."""
        if info.caller is None:
            return
        try:
            await auth.note_use(self._services, info.caller)
        except GatewayError as error:
            log.warning("http.use_not_noted", reason=error.message)


def _request_id() -> str:
    """Return a new id. One that a caller chose could be that of another request."""
    return f"req_{secrets.token_hex(12)}"


def _client_request_id(headers: Headers) -> str | None:
    given = headers.get(REQUEST_ID, "")
    return given if _SANE_ID.fullmatch(given) and redact(given) == given else None


def _pieces(message: Message) -> Iterator[Message]:
    """Yield large bodies in parts, each sent when the last is on its way, so that a slow reader needs no full copy."""
    content = message.get("body", b"")
    for start in range(0, len(content) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": content[start : start + PIECE_BYTES], "more_body": True}
    yield {**message, "body": content[(len(content) - 1) // PIECE_BYTES * PIECE_BYTES :]} if content else message


def _headers(
    given: Iterable[tuple[bytes, bytes]], info: RequestInfo, hsts_seconds: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers to add to those that an answer has."""
    quota = info.quota
    yield b"x-request-id", info.request_id.encode()
    yield b"x-ratelimit-limit", b"%d" % quota.limit
    yield b"x-ratelimit-remaining", b"%d" % quota.remaining
    yield b"x-ratelimit-reset", b"%d" % quota.reset
    names = [name for name, _ in given]
    yield from security_headers(hsts_seconds, names)
    if b"cache-control" not in names:
        yield b"cache-control", b"no-store"


def _tell(span: tracing.Span, method: str, info: RequestInfo) -> None:
    span.called(f"{method} {info.template}")
    span.note(
        http__request__method=method,
        http__route=info.template,
        http__response__status_code=info.status,
        gateway__request_id=info.request_id,
        error__type=info.error,
    )


def _who(caller: Caller | None) -> dict[str, str]:
    match caller:
        case None:
            return {}
        case DeviceCaller():
            return {"device_id": caller.id}
        case PersonCaller():
            return {"session_id": caller.session_id}  # the sub names a person
    return {"key_id": caller.id}


def _log(method: str, info: RequestInfo) -> None:
    who = _who(info.caller)
    write = log.warning if info.status >= _SERVER_ERROR else log.info
    write(
        "http.request",
        method=method,
        path=info.template,
        status=info.status,
        duration_ms=round(info.seconds * 1000, 1),
        client_address=info.client_address,
        **who,
        **({} if info.client_request_id is None else {"client_request_id": info.client_request_id}),
        **({} if info.error is None else {"error": info.error}),
    )
