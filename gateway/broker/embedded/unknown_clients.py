"""Limit for sockets that have not sent a CONNECT, apart from the places of clients.

Beyond the limit, the oldest socket of the address with most of them is closed. An address that opens silent sockets
takes places from itself alone, since a device sends its CONNECT at once.
"""

import structlog

from gateway.broker.embedded.session import ClientConnection
from gateway.core.addresses import site_of
from gateway.runtime.paced_log import Paced

log = structlog.get_logger()


class UnknownClients:
    """At most ``most`` such sockets at a time."""

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
        """Add a new socket; close another one if need be."""
        site = self._site[connection] = site_of(connection.address)
        self._of.setdefault(site, {})[connection] = None
        if len(self._site) > self._most:
            self._drop_one()

    def leave(self, connection: ClientConnection) -> None:
        """Remove a socket that has sent its CONNECT, or is gone."""
        site = self._site.pop(connection, None)
        if site is None:
            return
        del self._of[site][connection]
        if not self._of[site]:
            del self._of[site]

    def make_way(self) -> bool:
        """Close one; return False without any."""
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
