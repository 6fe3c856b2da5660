"""Where webhooks may go: the form of their URLs, and which addresses the gateway connects to for one.

Whoever holds a key with ``webhooks:write`` decides where the gateway sends something. So that this is no way into the
network that the gateway stands in, the addresses are judged when the connection is made, after the name was resolved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

MAX_URL_LENGTH: Final = 2_048
_PORTS: Final = {"http": 80, "https": 443}
_MOST_PORT: Final = 65_535
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>[/?][!\"$-~]*)?",
    re.IGNORECASE,
)
_FORM: Final = (
    "should be an https:// URL such as https://example.com/hooks, in ASCII, without user, password and fragment"
)
# Addresses that carry an IPv4 address inside: a router on the way may send them there.
_NAT64: Final = IPv6Network("64:ff9b::/96")
_UNICAST: Final = IPv6Network("2000::/3")

Ip = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Target:
    """A URL, taken apart; ``host`` without brackets, ``path`` with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL; ValueError says what it should be, and never repeats it."""
        found = _URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
        if found is None:
            raise ValueError(_FORM)
        scheme, host, path = found["scheme"].lower(), found["host"].lower().strip("[]"), found["path"] or "/"
        port = int(found["port"] or _PORTS[scheme])
        if not 0 < port <= _MOST_PORT or (found["host"].startswith("[") and literal(host) is None):
            raise ValueError(_FORM)
        return cls(scheme, host, port, path if path.startswith("/") else f"/{path}")

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by its very name; a name that only resolves to it is not."""
        ip = literal(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback

    @property
    def host_header(self) -> str:
        """The ``Host`` of a request to it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, *, allow_private: bool) -> Target:
    """The target of a URL that a webhook may have; ValueError says why it may not.

    A host that is a name is only known when the gateway connects: see :func:`may_connect`.
    """
    target = Target.parse(url)
    if target.scheme == "http" and not (target.is_loopback or allow_private):
        raise ValueError(
            "should start with https://, since events would cross the network in the clear. http:// is for this "
            "machine itself (127.0.0.1, localhost), or for where the setting webhook_allow_private is on"
        )
    ip = literal(target.host)
    if ip is not None and not may_connect(target, ip, allow_private=allow_private):
        raise ValueError(
            "should not be an address of a private network. The operator of the gateway can allow those with the "
            "setting webhook_allow_private"
        )
    return target


def may_connect(target: Target, ip: Ip, *, allow_private: bool) -> bool:
    """Whether the gateway connects to this address for this target."""
    if target.is_loopback:
        return ip.is_loopback
    return allow_private or is_public(ip)


def is_public(ip: Ip) -> bool:
    """Whether this is one host on the Internet, and leads nowhere else."""
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(ip.packed[-4:]) if ip in _NAT64 else None)
        if inner is not None:
            return is_public(inner)
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


def literal(host: str) -> Ip | None:
    """The IP address that a host is, ``None`` for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
