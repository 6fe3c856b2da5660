"""Headers that tell a browser what it may make of an answer: nothing, but for the page, which says so itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

POLICY: Final = b"content-security-policy"
NOTHING: Final = b"default-src 'none'; frame-ancestors 'none'"
"""The policy of what is data: it loads nothing, and stands in nobody's frame."""
HSTS_SECONDS: Final = "gateway.hsts_seconds"
"""Key of a request's scope: what ``Strict-Transport-Security`` says; 0, or missing: nothing."""


def security_headers(hsts_seconds: int, given: Collection[bytes] = ()) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers for an answer that has those ``given`` (names in lower case).

    ``hsts_seconds`` is 0 unless the answer goes by HTTPS (RFC 6797, section 7.2).
    """
    yield b"x-content-type-options", b"nosniff"
    yield b"cross-origin-resource-policy", b"same-origin"
    if POLICY not in given:
        yield POLICY, NOTHING
    if hsts_seconds:
        yield b"strict-transport-security", b"max-age=%d" % hsts_seconds
