"""Limit of connections, with eviction of idle ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway.runtime.paced_log import Paced

log = structlog.get_logger()

RESERVE: Final = 16
"""Places beyond the limit, for health checks."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Number of connections, and of those from one address (0: no limit per address)."""

    total: int
    per_address: int = 0


class EvictableConnection(Protocol):
    """A connection."""

    def give_way(self) -> None:
        """End to make room; :meth:`ConnectionLimiter.leave` is done already."""


class ConnectionLimiter:
    """Limits the number of connections.

    An idle connection can be evicted: one that waits for a request, sends one very slowly, or does not read its answer.
    The one that has been idle longest goes, of the address with most connections. An address that floods evicts its
    own.
    """

    def __init__(self, limits: ConnectionLimits, *, event: str = "http.connections_full") -> None:
        self._places = limits.total
        self._per_address = limits.per_address or limits.total
        self._of: dict[str, set[EvictableConnection]] = {}
        self._address: dict[EvictableConnection, str] = {}
        self._waiting: dict[str, dict[EvictableConnection, None]] = {}
        self._tell = Paced(lambda count: log.warning(event, most=limits.total, since_last_told=count))

    def enter(self, guest: EvictableConnection, address: str = "") -> bool:
        """Add a connection, in place of an idle one if need be. Return False when all are busy."""
        if len(self._of.get(address, ())) >= self._per_address and not self._send_away(address):
            return False
        if len(self._address) >= self._places:
            self._tell()
            if not self.make_way():
                return False
        self._address[guest] = address
        self._of.setdefault(address, set()).add(guest)
        return True

    def make_way(self) -> bool:
        """Evict an idle connection. Return False without any."""
        busiest = max(self._waiting, key=lambda address: len(self._of[address]), default=None)
        return busiest is not None and self._send_away(busiest)

    def leave(self, guest: EvictableConnection) -> None:
        """Remove a connection."""
        self.mark_busy(guest)
        address = self._address.pop(guest, None)
        if address is None:
            return
        self._of[address].discard(guest)
        if not self._of[address]:
            del self._of[address]

    def mark_idle(self, guest: EvictableConnection) -> None:
        """Mark it as idle: a request may come now, or the answer be read."""
        self.mark_busy(guest)
        if guest in self._address:
            self._waiting.setdefault(self._address[guest], {})[guest] = None

    def mark_busy(self, guest: EvictableConnection) -> None:
        """Mark it as busy: its request has arrived."""
        address = self._address.get(guest)
        if address is None or address not in self._waiting:
            return
        self._waiting[address].pop(guest, None)
        if not self._waiting[address]:
            del self._waiting[address]

    def _send_away(self, address: str) -> bool:
        longest = next(iter(self._waiting.get(address, ())), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.give_way()
        return True
