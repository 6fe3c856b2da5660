"""Rules for a request's head beyond the parser's: one host, one way to give the length of the body.

Where a proxy in front and the gateway can read the same bytes differently, one request can be smuggled in another (RFC
9112, section 11.2). What leaves room for that is refused, and the connection is closed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

HeaderPairs = Sequence[tuple[bytes, bytes]]
"""Names in lower case, values as they came."""

_VERSIONS: Final = ("1.0", "1.1")
_AUTHORITY: Final = re.compile(rb"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]*)")
_OF_UPGRADES: Final = (b"upgrade", b"http2-settings")
_BLANKS: Final = b" \t"
_LENGTHS: Final = (b"content-length", b"transfer-encoding")


def fault_in(method: bytes, version: str, url: bytes, headers: HeaderPairs) -> str | None:
    """Return what is wrong with a head and what to send instead, or None."""
    if method == b"CONNECT":
        return "The gateway is no proxy: it takes no CONNECT. Send the request to the server that it is for."
    if version not in _VERSIONS:
        return "The gateway speaks HTTP/1.1 and HTTP/1.0. Send one of them."
    return _fault_in_hosts(version, url, headers) or _fault_in_lengths(version, headers)


def host_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the name or address in ``Host``, in lower case, without its port, or None."""
    for name, value in headers:
        if name == b"host":
            found = _AUTHORITY.fullmatch(value.strip(_BLANKS))
            return (found["host"] if found else value).decode("latin-1").strip("[]").rstrip(".").lower()
    return None


def with_host_of_url(url: bytes, headers: HeaderPairs) -> HeaderPairs:
    """Return the headers with the host of an absolute URL, which takes precedence over ``Host`` (RFC 9112, 3.2.2)."""
    absolute = _ABSOLUTE.match(url)
    if absolute is None:
        return headers
    return [(b"host", absolute["authority"]), *(each for each in headers if each[0] != b"host")]


def without_upgrade(method: bytes, url: bytes, version: str, headers: HeaderPairs) -> bytes:
    """Return the bytes of the same head without its request for another protocol."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [
        b"%s: %s" % (name, _kept_options(value) if name == b"connection" else value)
        for name, value in headers
        if name not in _OF_UPGRADES
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _kept_options(value: bytes) -> bytes:
    options = [each.strip() for each in value.split(b",")]
    return b", ".join(each for each in options if each.lower() not in (b"upgrade", b"http2-settings"))


def _fault_in_hosts(version: str, url: bytes, headers: HeaderPairs) -> str | None:
    hosts = [value.strip(_BLANKS) for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return "A request has one Host header. Send it, once."
    absolute = _ABSOLUTE.match(url)
    for authority in (*hosts, *((absolute["authority"],) if absolute else ())):
        if not _AUTHORITY.fullmatch(authority):
            return "Host should be HOST or HOST:PORT, a name of letters, digits, . _ - or an IP address."
    return None


def _fault_in_lengths(version: str, headers: HeaderPairs) -> str | None:
    given = [(name, value.strip(_BLANKS).lower()) for name, value in headers if name in _LENGTHS]
    if len(given) > 1:
        return "A body has one length. Send either Content-Length or 'Transfer-Encoding: chunked', once."
    if given and given[0][0] == b"transfer-encoding" and (version != "1.1" or given[0][1] != b"chunked"):
        return "Transfer-Encoding should be chunked, in HTTP/1.1, and nothing else. Or send Content-Length."
    return None
