"""The HTTP application, put together from the table of operations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from gateway.http import auth, openapi
from gateway.http.endpoint import Authenticate, Endpoint, Parts, Unknown
from gateway.http.middleware import EveryRequest
from gateway.http.operation import AnyOperation
from gateway.http.pages import pages
from gateway.http.quota import Limiter
from gateway.http.services import Services
from gateway.http.table import OPERATIONS


def build(
    services: Services,
    operations: Sequence[AnyOperation] = OPERATIONS,
    *,
    authenticate: Authenticate = auth.authenticate,
) -> Starlette:
    """The API as an ASGI application.

    Paths are matched to the letter (a slash at the end is another path), and in the order of the table. Who serves it
    to nobody but itself, as the command line does, says by ``authenticate`` who calls.
    """
    limiter = Limiter(services.rate_limit_per_minute, services.store.context.clock)
    parts = Parts(services, limiter, openapi.document(), authenticate)
    routes = [
        Route(path, Endpoint(parts, path, {each.method: each for each in on_path}))
        for path, on_path in _by_path(operations).items()
    ]
    app = Starlette(
        routes=[*routes, *(Route(page.path, page) for page in pages()), Route("/{path:path}", Unknown(parts))],
        middleware=[Middleware(EveryRequest, services=services, limiter=limiter)],
    )
    app.router.redirect_slashes = False
    return app


def _by_path(operations: Sequence[AnyOperation]) -> dict[str, list[AnyOperation]]:
    paths: dict[str, list[AnyOperation]] = defaultdict(list)
    for operation in operations:
        paths[operation.path].append(operation)
    return paths
