"""How a request is served: who calls, may they, what do they say, do it, answer. In this order, for every operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import NotFoundError
from gateway.http import auth, body
from gateway.http.errors import MethodNotAllowedError
from gateway.http.middleware import Facts, facts_of
from gateway.http.operation import Answer, AnyOperation, Call, Caller, DeviceToken
from gateway.http.quota import Limiter
from gateway.http.services import Services
from gateway.model import Empty, TokenState

BASE: Final = "/v1"
_BODILESS: Final = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Parts:
    """What all endpoints share."""

    services: Services
    limiter: Limiter
    document: bytes


class Endpoint:
    """One path with the operations on it; an ASGI application."""

    def __init__(self, parts: Parts, path: str, operations: Mapping[str, AnyOperation]) -> None:
        self._parts = parts
        self._path = path
        self._operations = operations
        head = ["HEAD"] if "GET" in operations else []
        self._allow = ", ".join(sorted([*operations, *head, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request on this path."""
        facts, path = facts_of(scope), scope["path_params"]
        if self._path.format_map(path) != scope["path"]:  # Starlette's pattern also matches with a newline at the end
            await refuse_unknown(self._parts, scope)
        facts.template = self._path
        response = await self._respond(scope, receive, facts)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, facts: Facts) -> Response:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        operation = self._operations.get(method)
        if operation is None:
            await _admit(self._parts, scope, facts)
            raise MethodNotAllowedError(self._allow)
        caller = None if operation.access.public else await _identify(self._parts, scope, facts)
        if caller is not None:
            auth.authorize(operation.access, caller, scope["path_params"].get("device_id"))
        return _response(await self._call(operation, caller, scope, receive))

    async def _call(self, operation: AnyOperation, caller: Caller | None, scope: Scope, receive: Receive) -> Answer:
        services = self._parts.services
        raw = b""
        if operation.method in _BODILESS:
            takes = body.parse_query(operation.takes, scope)
        else:
            body.parse_query(Empty, scope)
            raw = await body.read(receive, Headers(scope=scope), services.max_body_bytes)
            takes = body.parse(operation.takes, raw)
        call = Call(services, caller, scope["path_params"], raw, self._parts.document)
        return await operation.handler(call, takes)


class Unknown:
    """Every path that is not in the table; an ASGI application."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say so."""
        del receive, send
        await refuse_unknown(self._parts, scope)


async def refuse_unknown(parts: Parts, scope: Scope) -> NoReturn:
    """There is nothing at this path; beneath the base of the API only callers with a credential hear that."""
    await _admit(parts, scope, facts_of(scope))
    raise NotFoundError("There is nothing at this path. GET /openapi.json lists what there is.")


async def _admit(parts: Parts, scope: Scope, facts: Facts) -> None:
    """Beneath the base of the API even an error is for callers with a credential."""
    if scope["path"] != BASE and not scope["path"].startswith(f"{BASE}/"):
        return
    caller = await _identify(parts, scope, facts)
    if isinstance(caller, DeviceToken) and caller.state is TokenState.RESET_ONLY:
        raise auth.refuse_reset_only()


async def _identify(parts: Parts, scope: Scope, facts: Facts) -> Caller:
    caller = facts.caller = await auth.authenticate(parts.services, Headers(scope=scope))
    facts.quota, exceeded = parts.limiter.take(caller.id)
    if exceeded is not None:
        raise exceeded
    return caller


def _response(answer: Answer) -> Response:
    content = (
        answer.body if isinstance(answer.body, bytes) else answer.body.model_dump_json(exclude=set(answer.exclude))
    )
    return Response(content, status_code=answer.status, headers=dict(answer.headers), media_type="application/json")
