"""Sockets that have not said CONNECT yet: a bounded number of them, apart from the places of clients.

When there are too many, the oldest of the address that has most of them goes: who opens sockets and says nothing takes
places from itself alone, and a device says CONNECT at once.
"""

import ipaddress
from typing import Final

import structlog

from gateway.broker.embedded.session import ClientConnection
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

_HOST_BITS: Final = 64
"""Of an IPv6 address: what one site has to choose from."""


class UnknownClients:
    """``most`` of them at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, dict[ClientConnection, None]] = {}
        self._site: dict[ClientConnection, str] = {}
        self._tell = Paced(
            lambda count: log.warning("broker.unauthenticated_full", most=most, closed_since_last_told=count)
        )

    def __len__(self) -> int:
        return len(self._site)

    def enter(self, connection: ClientConnection) -> None:
        """A socket was opened; another one may have to go for it."""
        site = self._site[connection] = site_of(connection.address)
        self._of.setdefault(site, {})[connection] = None
        if len(self._site) > self._most:
            self._drop_one()

    def leave(self, connection: ClientConnection) -> None:
        """It said CONNECT, or is gone."""
        site = self._site.pop(connection, None)
        if site is None:
            return
        del self._of[site][connection]
        if not self._of[site]:
            del self._of[site]

    def make_way(self) -> bool:
        """Close one; ``False`` when there is none."""
        if self._site:
            self._drop_one()
            return True
        return False

    def _drop_one(self) -> None:
        busiest = max(self._of.values(), key=len)
        oldest = next(iter(busiest))
        self.leave(oldest)
        oldest.abort()
        self._tell()


def site_of(address: str) -> str:
    """The address, or the network of an IPv6 address, of which one site has a great many."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:  # noqa: PLR2004 - IPv4
        return address
    return str(ipaddress.ip_network((int(found), 128 - _HOST_BITS), strict=False))
