"""Addresses and broker URLs: parsed once, printed without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import SecretStr

from gateway.core.redaction import MASK

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
ADDRESS_FORM: Final = "HOST:PORT, for example 127.0.0.1:8080"
BROKER_FORM: Final = "embedded, mosquitto, auto or mqtt[s]://USER:PASSWORD@HOST:PORT, for example mqtts://gateway:PASSWORD@broker.lan:8883"
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_PORT: Final = re.compile(r"[0-9]{1,5}")
UNKNOWN_HOST: Final = "unknown"
_SITE_BITS: Final = 64
"""Network bits of an IPv6 address. One subscriber has the rest and can connect from all of it."""


@dataclass(frozen=True)
class Address:
    """A TCP address. Port 0 asks the kernel for a free port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse HOST:PORT; an IPv6 host stands in brackets.

        Raises:
            ValueError: the text is no address; the message says what it should be.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        if not colon or not _valid_host(bare) or bracketed != (":" in bare):
            raise ValueError(f"should be {ADDRESS_FORM}")
        return cls(bare, _parse_port(port))

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the address. A name other than localhost counts as reachable."""
        address = _ip_or_none(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Return whether the address means every interface. A listener may use it; a client cannot connect to it."""
        address = _ip_or_none(self.host)
        return address is not None and address.is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class BrokerUrl:
    """The URL of an external broker. Its password is hidden however the URL is printed."""

    address: Address
    tls: bool
    username: str | None
    password: SecretStr | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse mqtt://user:password@host:port, or mqtts for TLS.

        Raises:
            ValueError: the text is no such URL; the message never repeats it.
        """
        try:
            parts = urlsplit(text)
            address = Address(parts.hostname or "", _broker_port(parts))
        except ValueError:
            raise ValueError(f"should be {BROKER_FORM}") from None
        if _not_just_an_address(parts) or not _valid_host(address.host):
            raise ValueError(f"should be {BROKER_FORM}")
        password = None if parts.password is None else SecretStr(unquote(parts.password))
        return cls(address, parts.scheme == "mqtts", unquote(parts.username) if parts.username else None, password)

    def __str__(self) -> str:
        user = "" if self.username is None else quote(self.username, safe="")
        secret = "" if self.password is None else f":{MASK}"
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{secret}{'@' if user or secret else ''}{self.address}"


def masked_url(text: str) -> str:
    """Return what may be shown of a URL that cannot be parsed: its scheme. The rest may hold a password."""
    scheme, separator, _ = text.partition("://")
    return f"{scheme}://{MASK}" if separator and scheme in _PORTS else MASK


def _parse_port(text: str) -> int:
    """Return a TCP port, 0 to 65535."""
    if not _PORT.fullmatch(text) or int(text) > 65_535:  # noqa: PLR2004 - the largest 16-bit number
        raise ValueError(f"should be {ADDRESS_FORM}, with a port from 0 to 65535")
    return int(text)


def _broker_port(parts: SplitResult) -> int:
    """Return the port of a broker's URL, or the default port of its scheme. Port 0 is refused."""
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError("a broker has a port from 1 to 65535")
    return parts.port or _PORTS.get(parts.scheme, 0)


def _not_just_an_address(parts: SplitResult) -> bool:
    """Return whether a URL has an unknown scheme, or more than user, password, host and port."""
    return parts.scheme not in _PORTS or bool(parts.path.strip("/") or parts.query or parts.fragment)


def host_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address of a peer, without zone. An IPv4 address in IPv6 form becomes IPv4. None if it is neither."""
    address = _ip_or_none(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def site_of(host: str) -> str:
    """Return the IPv4 address, or the network of the IPv6 address, that limits per address count by."""
    address = host_address(host)
    if address is None:
        return UNKNOWN_HOST
    return str(ip_network((address, _SITE_BITS), strict=False) if isinstance(address, IPv6Address) else address)


def _valid_host(host: str) -> bool:
    """Return whether the text can be a host name or an IP address."""
    return bool(_HOST_NAME.fullmatch(host)) or _ip_or_none(host) is not None


def _ip_or_none(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that the text spells, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
