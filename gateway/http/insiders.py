"""Insiders, who see the gateway's own state: keys that may read devices, the scraper's token, and local callers.

A request that came through a proxy counts as foreign, even from a proxy on this machine, if the proxy's headers show
it.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.http import auth
from gateway.http.callers import READ, Caller, DeviceCaller

_SAID_BY_PROXIES: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)


def is_local(scope: Scope) -> bool:
    """Return whether it was sent on the gateway's own machine, and by no proxy."""
    if any(name in _SAID_BY_PROXIES for name, _ in scope["headers"]):
        return False
    client, server = scope.get("client"), scope.get("server")
    if not client or not client[0]:
        return False
    return _is_loopback(client[0]) or bool(server and client[0] == server[0])


def shows(headers: Headers, token: str | None) -> bool:
    """Return whether the request carries the scraper's token."""
    if token is None or "authorization" not in headers:
        return False
    return hmac.compare_digest(auth.credential(headers).encode(), token.encode())


def may_read(caller: Caller) -> bool:
    """Return whether it is a key, or a person, that may read devices."""
    return not isinstance(caller, DeviceCaller) and READ.scope in caller.scopes


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
