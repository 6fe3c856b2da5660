"""Public operations: health, readiness, the API's own description, the keys that sign grants."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final

from gateway.domain import grants
from gateway.errors import StoreError
from gateway.http.callers import PUBLIC, READ, Authorization, DeviceCaller
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.responses import ApiResponse
from gateway.models.bindings import JwkSet
from gateway.models.fields import Empty
from gateway.models.system import Health, KeyFacts, Readiness
from gateway.observability import metrics
from gateway.store import Purpose, View, key_sql

TAG: Final = "gateway"
_UNAVAILABLE: Final = 503
_HIDDEN: Final = "Ask with an API key that has devices:read, or on the gateway's own machine."


async def get_health(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /health``."""
    try:
        await call.services.store.read(key_sql.projects, Purpose.HEALTH)
    except (StoreError, sqlite3.Error):
        return ApiResponse(Health(status="unhealthy", database="disconnected"), status=_UNAVAILABLE)
    return ApiResponse(Health(status="healthy", database="connected"))


async def get_readiness(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /ready``."""
    report = await call.services.readiness()
    readiness = Readiness.model_validate(report if call.request.is_inside else _without_words(report))
    return ApiResponse(readiness, status=200 if readiness.ready else _UNAVAILABLE)


def _without_words(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report for outsiders: that something is wrong, without the words of the broker or a library."""
    return {
        name: _without_words(part)
        if isinstance(part, dict)
        else [_without_words(each) for each in part]
        if isinstance(part, list)
        else _HIDDEN
        if name == "error" and part is not None
        else part
        for name, part in report.items()
    }


async def get_metrics(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /metrics``."""
    return ApiResponse(await call.services.scrape())


async def get_openapi(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /openapi.json``."""
    return ApiResponse(await asyncio.to_thread(call.services.openapi))


async def get_asyncapi(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /asyncapi.json``."""
    del call
    from gateway.http.spec import asyncapi  # noqa: PLC0415 - loads all descriptions, which are seldom read

    return ApiResponse(asyncapi.document())


async def get_jwks(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /.well-known/jwks.json``."""
    return ApiResponse(
        await call.services.store.read(_keys, Purpose.HEALTH), headers={"Cache-Control": "public, max-age=300"}
    )


def _keys(view: View) -> JwkSet:
    return JwkSet(keys=grants.published_keys(view))


async def get_key(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/key``."""
    project = await call.work.read(lambda view: key_sql.require_project(view, call.project_id))
    scopes = () if isinstance(call.caller, DeviceCaller) else call.caller.scopes
    return ApiResponse(KeyFacts(id=call.actor, project_id=project.id, project_name=project.name, scopes=sorted(scopes)))


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/health",
        summary="Whether the gateway serves",
        description="For a supervisor that restarts what is not healthy.",
        tag=TAG,
        access=PUBLIC,
        takes=Empty,
        handler=get_health,
        answers={200: Health, 503: Health},
    ),
    Operation(
        method="GET",
        path="/ready",
        summary="Whether the gateway can do all of its work",
        description="With its facts: the link to the broker, who steers access there, and what waits in the outbox. "
        "503 while the broker is away: what is asked for is accepted all the same, and reaches devices later. What "
        "is wrong is said in words to an API key with `devices:read` and on the gateway's own machine.",
        tag=TAG,
        access=Authorization(insiders="more"),
        takes=Empty,
        handler=get_readiness,
        answers={200: Readiness, 503: Readiness},
    ),
    Operation(
        method="GET",
        path="/metrics",
        summary="The gateway in figures",
        description="For Prometheus, in its text format, once a second at most. It takes an API key with "
        "`devices:read`, or the token in `metrics_token_file`; on the gateway's own machine none unless that is set. "
        "No device, project or key is ever named; "
        "'gateway docs metrics' says what each figure means.",
        tag=TAG,
        access=Authorization(insiders="alone"),
        takes=Empty,
        handler=get_metrics,
        answers={200: None},
        media_type=metrics.MEDIA_TYPE,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        summary="This document",
        description="OpenAPI 3.1, made from the table that the routes are made from.",
        tag=TAG,
        access=PUBLIC,
        takes=Empty,
        handler=get_openapi,
        answers={200: None},
    ),
    Operation(
        method="GET",
        path="/asyncapi.json",
        summary="What travels over MQTT",
        description="AsyncAPI 3.0, made from the models that read and write the messages.",
        tag=TAG,
        access=PUBLIC,
        takes=Empty,
        handler=get_asyncapi,
        answers={200: None},
    ),
    Operation(
        method="GET",
        path="/.well-known/jwks.json",
        summary="The public keys that sign grants",
        description="JSON Web Key Set (RFC 7517); the first is the one in use. A device gets the key of its binding "
        "with the answer to bind, and trusts that one.",
        tag=TAG,
        access=PUBLIC,
        takes=Empty,
        handler=get_jwks,
        answers={200: JwkSet},
    ),
    Operation(
        method="GET",
        path="/v1/key",
        summary="Get the API key that asks",
        description="What it may do, and in which project: for a program that offers only what is open to it. For a "
        "person in session `id` is the actor, `user:…`.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_key,
        answers={200: KeyFacts},
    ),
)
