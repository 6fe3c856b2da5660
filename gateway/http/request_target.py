"""Rules for the target of a request: an allowed host, and a path that every reader parses alike.

A web page can point its own name to 127.0.0.1 (DNS rebinding). Its scripts then reach local services, and only ``Host``
shows it. A path with ``%2F`` or ``..`` is one thing to a proxy's rules and another to the server behind it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from gateway.errors import InvalidRequestError
from gateway.http.server.request_head import host_of

ANY: Final = "*"
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN: Final = re.compile(rb"%(2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF])|\\")
_DOTS: Final = (b".", b"..")


class HostRules:
    """Host names under which the gateway answers; loopback names and IP addresses are always among them."""

    def __init__(self, allowed: Collection[str]) -> None:
        """Take names in lower case; ``*`` allows any, ``*.example.com`` any below it."""
        self._any = ANY in allowed
        self._names = frozenset(allowed)

    def require(self, scope: Scope) -> None:
        """Accept a host that is allowed, or missing (HTTP/1.0: no browser sends that).

        Raises:
            InvalidRequestError: another host is requested.
        """
        if self._any:
            return
        host = host_of(scope["headers"])
        if host is not None and not self._allows(host):
            raise InvalidRequestError(
                "This gateway is not asked for by the name in Host. Use its IP address or localhost, or have that name "
                "in the setting http_allowed_hosts ('gateway docs settings').",
                details={"field": "Host"},
            )

    def _allows(self, host: str) -> bool:
        if host in self._names or host == "localhost" or host.endswith(".localhost") or _is_address(host):
            return True
        return any(f"*.{parent}" in self._names for parent in _parents(host))


def require_plain_path(scope: Scope) -> None:
    """Accept a path that can be read in one way alone.

    Raises:
        InvalidRequestError: it hides a slash, a backslash or a control character, has a dot segment, or is no UTF-8.
    """
    raw = scope.get("raw_path") or b""
    if b"%" not in raw and b"/." not in raw and b"\\" not in raw:
        return
    if _BAD_ESCAPE.search(raw) or _HIDDEN.search(raw) or not _is_text(raw) or any(map(_is_dots, raw.split(b"/"))):
        raise InvalidRequestError(
            "The path has an encoded slash, backslash or control character, a segment . or .., or is not "
            "percent-encoded UTF-8. Send ids as the gateway gave them.",
            details={"field": "path"},
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _parents(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]


def _is_text(raw: bytes) -> bool:
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_dots(segment: bytes) -> bool:
    return unquote_to_bytes(segment) in _DOTS
