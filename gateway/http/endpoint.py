"""Endpoints: authenticate, authorise, parse, handle, answer; in this order, for every operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.addresses import UNKNOWN_HOST
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.errors import GatewayError, NotFoundError, StoreError, UnauthorizedError
from gateway.http import auth, body, idempotency, insiders
from gateway.http.auth_failure_limit import AuthFailureLimiter
from gateway.http.callers import READ, ApiKeyCaller, Caller, DeviceCaller, PersonCaller
from gateway.http.errors import CsrfError, MethodNotAllowedError
from gateway.http.idempotency import IdempotentRequest
from gateway.http.middleware import RequestInfo, request_info
from gateway.http.operation import AnyOperation, Request, RequestContext
from gateway.http.rate_limit import RateLimiter
from gateway.http.refusals import Refused, RefusedCredentialError
from gateway.http.responses import ApiResponse, Stream
from gateway.http.services import Services
from gateway.http.streaming import Streaming
from gateway.http.unit_of_work import ReplayError, UnitOfWork
from gateway.models.fields import Empty
from gateway.models.states import TokenState
from gateway.store import idempotency_sql

BASE: Final = "/v1"
Authenticate = Callable[[Services, Headers], Awaitable[Caller]]
"""Returns the caller by the headers of the request; raises UnauthorizedError."""


@dataclass(frozen=True)
class EndpointParts:
    """What all endpoints share."""

    services: Services
    limiter: RateLimiter
    auth_failures: AuthFailureLimiter
    authenticate: Authenticate


class Endpoint:
    """One path with the operations on it; an ASGI application."""

    def __init__(self, parts: EndpointParts, path: str, operations: Mapping[str, AnyOperation]) -> None:
        self._parts = parts
        self._path = path
        self._operations = operations
        head = ["HEAD"] if "GET" in operations else []
        self._allow = ", ".join(sorted([*operations, *head, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request on this path."""
        info = request_info(scope)
        info.template = self._path
        response = await self._respond(scope, receive, info)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, info: RequestInfo) -> ASGIApp:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        operation = self._operations.get(method)
        if operation is None:
            await _admit(self._parts, scope, info)
            raise MethodNotAllowedError(self._allow)
        caller = None if operation.access.public else await _identify(self._parts, scope, info)
        is_inside = bool(operation.access.insiders) and await _is_inside(self._parts, operation, scope, info)
        if caller is not None:
            auth.authorize(operation.access, caller, scope["path_params"].get("device_id"))
        answer = await self._call(operation, caller, scope, receive, is_inside=is_inside)
        return (
            self._streaming(answer, caller, scope)
            if isinstance(answer, Stream)
            else _response(answer, answer.media_type or operation.media_type)
        )

    def _streaming(self, stream: Stream, caller: Caller | None, scope: Scope) -> Streaming:
        services = self._parts.services
        return Streaming(
            stream,
            services.streams,
            "" if caller is None else caller.id,
            still_good=lambda: self._parts.authenticate(services, Headers(scope=scope)),
        )

    async def _call(
        self, operation: AnyOperation, caller: Caller | None, scope: Scope, receive: Receive, *, is_inside: bool
    ) -> ApiResponse | Stream:
        raw, takes = await self._parse(operation, scope, receive)
        idempotent = _idempotent(self._parts.services, operation, caller, scope, raw)
        if getattr(takes, "dry_run", False):
            idempotent = None  # it changes nothing, so nothing needs to be kept
        request = Request(scope["path_params"], raw, Headers(scope=scope), is_inside)
        context = RequestContext(self._parts.services, request, self._work(caller, scope, idempotent), caller)
        if idempotent is None:
            return await operation.handler(context, takes)
        return await _only_once(operation, context, takes, idempotent)

    async def _parse(self, operation: AnyOperation, scope: Scope, receive: Receive) -> tuple[bytes, BaseModel]:
        """Return the body, and the operation's model made of the body, or of the query."""
        if not operation.has_body:
            return b"", body.parse_query(operation.takes, scope)
        body.parse_query(Empty, scope)
        limit = max(operation.most_body_bytes or 0, self._parts.services.options.max_body_bytes)
        raw = await body.read(receive, Headers(scope=scope), limit)
        return raw, body.parse(operation.takes, raw)

    def _work(self, caller: Caller | None, scope: Scope, idempotent: IdempotentRequest | None) -> UnitOfWork:
        services = self._parts.services
        caller_id = "" if caller is None else caller.id
        address, request_id = _audited_address(caller, scope), request_info(scope).request_id
        name = caller.name if isinstance(caller, ApiKeyCaller) else None
        return UnitOfWork(services.store, services.scans, caller_id, address, request_id, name, idempotent)


def _audited_address(caller: Caller | None, scope: Scope) -> str | None:
    """Return the address for events: None for a device, whose wearer it would locate, and for the command line."""
    address = request_info(scope).client_address
    return address if caller is not None and not isinstance(caller, DeviceCaller) and address != UNKNOWN_HOST else None


def _idempotent(
    services: Services, operation: AnyOperation, caller: Caller | None, scope: Scope, raw: bytes
) -> IdempotentRequest | None:
    """Return the identity of a POST with an ``Idempotency-Key``, or None."""
    headers = Headers(scope=scope)
    key = idempotency.key_of(headers) if operation.is_idempotent else None
    if key is None or caller is None:
        return None
    request = idempotency.request_hash(operation.method, scope["path"], raw)
    secret = auth.replay_secret(services, headers)
    return IdempotentRequest(caller.credential_id, key, secret, request, _most_bytes(caller))


def _most_bytes(caller: Caller) -> int:
    """Return the bytes kept per caller. There may be 100,000 devices; keys are few, and one may serve all of them."""
    return (
        idempotency_sql.MOST_BYTES_OF_DEVICE if isinstance(caller, DeviceCaller) else idempotency_sql.MOST_BYTES_OF_KEY
    )


async def _only_once(
    operation: AnyOperation, context: RequestContext, takes: BaseModel, idempotent: IdempotentRequest
) -> ApiResponse | Stream:
    """Call the handler, unless the request was done before; then return the response that it got then."""
    work = context.work
    try:
        await work.read(work.replay)
        try:
            answer = await operation.handler(context, takes)
        except GatewayError:
            await work.read(work.replay)  # of two at the same time one may be blocked by what the other has done
            raise
        return answer if idempotent.kept or isinstance(answer, Stream) else await work.commit(lambda _: answer)
    except ReplayError as replay:
        return replay.answer


class Unknown:
    """Answers every path that is not in the table; an ASGI application."""

    def __init__(self, parts: EndpointParts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the path."""
        del receive, send
        await refuse_unknown(self._parts, scope)


async def refuse_unknown(parts: EndpointParts, scope: Scope) -> NoReturn:
    """Refuse an unknown path. Below the base of the API only callers with a credential get that error."""
    await _admit(parts, scope, request_info(scope))
    page = ", and /docs is a page to try it" if parts.services.options.serves_docs else ""
    raise NotFoundError(f"There is nothing at this path. GET /openapi.json lists what there is{page}.")


async def _admit(parts: EndpointParts, scope: Scope, info: RequestInfo) -> None:
    """Authenticate: below the base of the API even an error needs a credential."""
    if scope["path"] != BASE and not scope["path"].startswith(f"{BASE}/"):
        return
    caller = await _identify(parts, scope, info)
    if isinstance(caller, DeviceCaller) and caller.state is TokenState.RESET_ONLY:
        raise auth.refuse_reset_only()


async def _is_inside(parts: EndpointParts, operation: AnyOperation, scope: Scope, info: RequestInfo) -> bool:
    """Return whether the caller gets all facts. What is for insiders alone is refused to others."""
    alone = operation.access.insiders == "alone"
    headers, token = Headers(scope=scope), parts.services.options.metrics_token
    if insiders.is_local(scope) and not (alone and token is not None):
        return True
    if not alone and not auth.is_credential_shown(parts.services, headers):
        return False
    if alone and insiders.shows(headers, token):
        return True
    try:
        caller = await _identify(parts, scope, info)
    except StoreError:
        if alone:
            raise
        return False  # an unreadable registry opens nothing, and readiness must report it
    if alone:
        auth.authorize(READ, caller, None)
    return insiders.may_read(caller)


async def _identify(parts: EndpointParts, scope: Scope, info: RequestInfo) -> Caller:
    try:
        headers = Headers(scope=scope)
        caller = info.caller = await parts.authenticate(parts.services, headers)
        _require_same_site(parts, scope, info, caller)
        if parts.services.options.device_certificates:
            auth.require_certificate(scope, caller)
    except UnauthorizedError as error:
        count_refusal(parts, scope, info, error)
        raise
    info.quota, exceeded = parts.limiter.take(caller.id)
    if exceeded is not None:
        raise exceeded
    await auth.note_first_use(parts.services, caller)
    return caller


def _require_same_site(parts: EndpointParts, scope: Scope, info: RequestInfo, caller: Caller) -> None:
    people = parts.services.people
    if people is None or not isinstance(caller, PersonCaller):
        return
    try:
        people.require_same_site(scope["method"], Headers(scope=scope), caller)
    except CsrfError:
        _note_refusal(parts, info, Refused("csrf", project_id=caller.project_id))
        raise


def count_refusal(parts: EndpointParts, scope: Scope, info: RequestInfo, error: UnauthorizedError) -> None:
    """Count a refused sign-in, for the audit trail and for the limit of its address.

    Raises:
        RateLimitExceededError: the address has sent too many.
    """
    _note_refusal(parts, info, error.refused if isinstance(error, RefusedCredentialError) else Refused("unknown"))
    _count_refusal(parts, scope, info)


def _note_refusal(parts: EndpointParts, info: RequestInfo, refused: Refused) -> None:
    parts.services.sign_in_refused(
        RefusedSignIn("http", refused.reason, info.client_address, refused.key_id, refused.project_id)
    )


def _count_refusal(parts: EndpointParts, scope: Scope, info: RequestInfo) -> None:
    """Count a refusal. Beyond the limit, refuse the address for a while and write no line into the log."""
    too_many = parts.auth_failures.refused(scope)
    if too_many is not None:
        info.quota, error = too_many
        info.worth_a_line = False
        raise error


def _response(answer: ApiResponse, media_type: str) -> Response:
    return Response(
        answer.content,
        status_code=answer.status,
        headers={
            **answer.headers,
            "Content-Type": media_type,
        },  # as the document has it: Starlette would add a charset
    )
