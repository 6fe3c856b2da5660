"""Guard of webhook URLs: their form, and the addresses that the gateway connects to.

Who holds a key with ``webhooks:write`` chooses where the gateway sends requests. That must not open a way into the
gateway's own network. The address is therefore checked when the connection is made, after the name was resolved.
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
# IPv6 addresses that carry an IPv4 address: a router on the way may forward to that.
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
"""Addresses that are not one host on the Internet: IANA's registries of special-purpose addresses, and multicast.

They are listed here because ``ipaddress`` judges some of them differently in different versions of Python."""
_HERE: Final[Mapping[int, tuple[IPv4Network | IPv6Network, ...]]] = {
    4: (IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8")),
    6: (_OWN6,),
}

Ip = IPv4Address | IPv6Address


@dataclass(frozen=True)
class WebhookUrl:
    """A parsed URL; ``host`` has no brackets, ``path`` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> WebhookUrl:
        """Parse a URL.

        Raises:
            ValueError: the text is no URL of a webhook; the message says what it should be and never repeats it.
        """
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
        """Return whether the host's name or address is this machine. A name that only resolves to it does not count."""
        ip = literal(self.host)
        return self.host == "localhost" if ip is None else ip.is_loopback

    @property
    def host_header(self) -> str:
        """Return the ``Host`` header of a request to this URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, *, allow_private: bool, allow_loopback: bool) -> WebhookUrl:
    """Return the parsed URL of a webhook. A host name is checked again when the gateway connects (:func:`may_connect`).

    Raises:
        ValueError: a webhook may not have this URL; the message says why.
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
    """Return whether the gateway may connect to this address for this URL.

    A name that resolves to this machine needs both settings. Services on loopback trust their machine, and a name does
    not show where it leads.
    """
    if target.is_loopback:
        return allow_loopback and ip.is_loopback
    if leads_here(ip):
        return allow_private and allow_loopback
    return allow_private or is_public(ip)


def is_public(ip: Ip) -> bool:
    """Return whether this is one host on the Internet, and nothing else."""
    if ip in _COMPATIBLE:
        return False  # not routed
    inner = _inner(ip)
    if inner is not None:
        return is_public(inner)
    if isinstance(ip, IPv6Address) and ip not in _UNICAST:
        return False
    return not any(ip in network for network in _SPECIAL[ip.version])


def leads_here(ip: Ip) -> bool:
    """Return whether a connection to this address ends at this machine: loopback, 0.0.0.0 and ``::``."""
    inner = _inner(ip)
    if inner is not None:
        return leads_here(inner)
    return any(ip in network for network in _HERE[ip.version])


def _inner(ip: Ip) -> IPv4Address | None:
    """Return the IPv4 address inside an IPv6 address: mapped, compatible, translated (NAT64) or tunnelled (6to4).

    Teredo is left out: it leads to a server that the sender chooses, and no such address counts as public.
    """
    if isinstance(ip, IPv4Address) or ip in _OWN6:
        return None
    if ip in _NAT64 or ip in _COMPATIBLE:
        return IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour


def literal(host: str) -> Ip | None:
    """Return the IP address that a host is, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
