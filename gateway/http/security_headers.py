"""Security headers: a browser may do nothing with an answer. The page has its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

POLICY: Final = b"content-security-policy"
NOTHING: Final = b"default-src 'none'; frame-ancestors 'none'"
"""Policy of data: it loads nothing, and no page may frame it."""
HSTS_SECONDS: Final = "gateway.hsts_seconds"
"""Key of a request's scope: the value for ``Strict-Transport-Security``; 0 or missing: no header."""


def security_headers(hsts_seconds: int, given: Collection[bytes] = ()) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers for an answer that has those ``given`` (names in lower case).

    ``hsts_seconds`` is 0 unless the answer goes over HTTPS (RFC 6797, section 7.2).
    """
    yield b"x-content-type-options", b"nosniff"
    yield b"cross-origin-resource-policy", b"same-origin"
    if POLICY not in given:
        yield POLICY, NOTHING
    if hsts_seconds:
        yield b"strict-transport-security", b"max-age=%d" % hsts_seconds
