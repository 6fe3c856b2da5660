"""The HTTP application, assembled from the table of operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from starlette.types import ASGIApp

from gateway.http import auth
from gateway.http.auth_failure_limit import AuthFailureLimiter
from gateway.http.endpoint import Authenticate, Endpoint, EndpointParts, Unknown
from gateway.http.middleware import RequestMiddleware
from gateway.http.operation import AnyOperation
from gateway.http.pages import pages
from gateway.http.rate_limit import RateLimiter
from gateway.http.resources.operations import OPERATIONS
from gateway.http.routing import Paths
from gateway.http.services import Services


def build(
    services: Services,
    operations: Sequence[AnyOperation] = OPERATIONS,
    *,
    authenticate: Authenticate = auth.authenticate,
) -> ASGIApp:
    """Return the API as an ASGI application.

    The command line serves it to itself alone, and passes its own ``authenticate``.
    """
    services = replace(services, openapi=_document)
    clock = services.store.context.clock
    limiter = RateLimiter(services.options.rate_limit_per_minute, clock)
    auth_failures = AuthFailureLimiter(services.options.refused_credentials_per_minute, clock)
    parts = EndpointParts(services, limiter, auth_failures, authenticate)
    endpoints = [
        (path, Endpoint(parts, path, {each.method: each for each in on_path}))
        for path, on_path in _by_path(operations).items()
    ]
    served = pages(fleet=services.options.serves_page, docs=services.options.serves_docs)
    paths = Paths([*endpoints, *_sign_in(parts), *((page.path, page) for page in served)], Unknown(parts))
    return RequestMiddleware(paths, services, limiter)


def _sign_in(parts: EndpointParts) -> list[tuple[str, ASGIApp]]:
    """Return the paths of people who sign in, if they do."""
    if parts.services.people is None:
        return []
    from gateway.http.sign_in.endpoints import endpoints  # noqa: PLC0415 - loads an HTTP client

    return endpoints(parts, parts.services.people)


def _document() -> bytes:
    from gateway.http.spec import openapi  # noqa: PLC0415 - loads all descriptions, which are seldom read

    return openapi.document()


def _by_path(operations: Sequence[AnyOperation]) -> dict[str, list[AnyOperation]]:
    paths: dict[str, list[AnyOperation]] = defaultdict(list)
    for operation in operations:
        paths[operation.path].append(operation)
    return paths
