"""Where webhooks may go: the form of their URLs, and which addresses the gateway connects to for one.

Whoever holds a key with ``webhooks:write`` decides where the gateway sends something. So that this is no way into the
network that the gateway stands in, the addresses are judged when the connection is made, after the name was resolved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
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
_COMPATIBLE: Final = IPv6Network("::/96")
_UNICAST: Final = IPv6Network("2000::/3")
_OWN6: Final = IPv6Network("::/127")
"""``::`` and ``::1``."""

_SPECIAL: Final[Mapping[int, tuple[IPv4Network | IPv6Network, ...]]] = {
    4: tuple(
        map(
            IPv4Network,
            (
                *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
                *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
                *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
                *("224.0.0.0/4", "240.0.0.0/4"),
            ),
        )
    ),
    6: tuple(
        map(
            IPv6Network,
            (
                *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
                *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16"),
                *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
            ),
        )
    ),
}
"""What is not one host on the Internet: IANA's registries of special-purpose addresses, and multicast.

They are written out, since ``ipaddress`` judges some of them otherwise from one version of Python to the next.
"""
_HERE: Final[Mapping[int, tuple[IPv4Network | IPv6Network, ...]]] = {
    4: (IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8")),
    6: (_OWN6,),
}

Ip = IPv4Address | IPv6Address


@dataclass(frozen=True)
class WebhookUrl:
    """A URL, taken apart; ``host`` without brackets, ``path`` with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> WebhookUrl:
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


def check_url(url: str, *, allow_private: bool, allow_loopback: bool) -> WebhookUrl:
    """The target of a URL that a webhook may have; ValueError says why it may not.

    A host that is a name is only known when the gateway connects: see :func:`may_connect`.
    """
    target = WebhookUrl.parse(url)
    if target.is_loopback and not allow_loopback:
        raise ValueError(
            "should not be the gateway's own machine. The operator of the gateway can allow that, for trying things "
            "out, with the setting webhook_allow_loopback"
        )
    if target.scheme == "http" and not (target.is_loopback or allow_private):
        raise ValueError(
            "should start with https://, since events would cross the network in the clear. http:// is for where the "
            "setting webhook_allow_private is on, and for the gateway's own machine (127.0.0.1, localhost) with the "
            "setting webhook_allow_loopback"
        )
    ip = literal(target.host)
    if ip is not None and not may_connect(target, ip, allow_private=allow_private, allow_loopback=allow_loopback):
        raise ValueError(
            "should not be an address of a private network or of the gateway's own machine. The operator of the "
            "gateway can allow those with the settings webhook_allow_private and webhook_allow_loopback"
        )
    return target


def may_connect(target: WebhookUrl, ip: Ip, *, allow_private: bool, allow_loopback: bool) -> bool:
    """Whether the gateway connects to this address for this target.

    A name that leads to this machine needs both settings: what listens there trusts its own machine, and a name shows
    nobody where it leads.
    """
    if target.is_loopback:
        return allow_loopback and ip.is_loopback
    if leads_here(ip):
        return allow_private and allow_loopback
    return allow_private or is_public(ip)


def is_public(ip: Ip) -> bool:
    """Whether this is one host on the Internet, and leads nowhere else."""
    if ip in _COMPATIBLE:
        return False  # nobody routes these
    inner = _inner(ip)
    if inner is not None:
        return is_public(inner)
    if isinstance(ip, IPv6Address) and ip not in _UNICAST:
        return False
    return not any(ip in network for network in _SPECIAL[ip.version])


def leads_here(ip: Ip) -> bool:
    """Whether a connection to this address ends at this machine: loopback, and 0.0.0.0 and ::, which mean it too."""
    inner = _inner(ip)
    if inner is not None:
        return leads_here(inner)
    return any(ip in network for network in _HERE[ip.version])


def _inner(ip: Ip) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries: mapped, compatible, translated (NAT64) or tunnelled (6to4).

    Not that of Teredo, which leads to a server of somebody's choice: no such address is public.
    """
    if isinstance(ip, IPv4Address) or ip in _OWN6:
        return None
    if ip in _NAT64 or ip in _COMPATIBLE:
        return IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour


def literal(host: str) -> Ip | None:
    """The IP address that a host is, ``None`` for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
