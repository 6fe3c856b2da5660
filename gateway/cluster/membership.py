"""This gateway among those of its registry: its registration, and the leases that it holds or waits for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway import __version__
from gateway.cluster.lease import Lease, Term, uptime
from gateway.cluster.registration import Registration
from gateway.core.clock import DAY_MS, SECOND_MS
from gateway.store import lease_sql
from gateway.store.lease_sql import FLEET, GatewayRecord, LeaseRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store import Store, View

ALONE_SECONDS: Final = DAY_MS / SECOND_MS
"""Length of a lease on SQLite. The data directory admits one process, so nothing waits for the end of its leases."""
_INSTANCE_BYTES: Final = 8


class Leases(NamedTuple):
    """The leases of a registry, and the time of its database in milliseconds since the epoch."""

    rows: list[LeaseRecord]
    now: int


class Membership:
    """What one gateway is in a registry. ``lease_seconds`` is None where no other process can be.

    By ``clock``, in seconds, it gives its leases up.
    """

    def __init__(
        self,
        store: Store,
        *,
        gateway_id: str,
        http: str,
        broker_id: str,
        lease_seconds: float | None = None,
        clock: Callable[[], float] = uptime,
    ) -> None:
        instance = store.context.entropy(_INSTANCE_BYTES).hex()
        gateway = GatewayRecord(gateway_id, instance, __version__, socket.gethostname(), http, broker_id, 0, 0)
        term = Term(lease_seconds or ALONE_SECONDS, clock)
        self.is_alone = lease_seconds is None
        self.registration = Registration(store, gateway, term)
        self.instance = instance
        self.broker = Lease(store, lease_sql.of_broker(broker_id), self.registration.holder, term)
        self.fleet = Lease(store, FLEET, self.registration.holder, term)

    async def begin(self) -> None:
        """Register this gateway.

        Raises:
            AlreadyRunningError: another process runs under its id.
            StoreError: the registry cannot be written.
        """
        await self.registration.begin(is_alone=self.is_alone)

    async def end(self) -> None:
        """Leave the registry. All work of this gateway has ended."""
        await self.registration.end()

    def report(self) -> dict[str, Any]:
        """Return what ``/ready`` says of this gateway."""
        return {"id": self.registration.holder.gateway_id, "alone": self.is_alone}

    def states(self, found: Leases) -> list[dict[str, Any]]:
        """Return what ``/ready`` says of each lease of this gateway; the age in seconds."""
        rows = {row.name: row for row in found.rows}
        return [self._state(lease, rows.get(lease.name), found.now) for lease in (self.broker, self.fleet)]

    def _state(self, lease: Lease, row: LeaseRecord | None, now: int) -> dict[str, Any]:
        owned = row is not None and row.until > now and (lease.is_held or row.instance != self.instance)
        return {
            "name": lease.name,
            "held": lease.is_held,
            "owner": row.gateway_id if row is not None and owned else None,
            "epoch": 0 if row is None else row.epoch,
            "age_seconds": 0 if row is None else max(0, now - row.taken_at) // SECOND_MS,
            "error": None if owned else f"No gateway holds the lease '{lease.name}' now.",
        }


def read_leases(view: View, instant: int) -> Leases:
    """Return the leases; ``instant`` is the time of this process in milliseconds since the epoch."""
    return Leases(lease_sql.leases(view), lease_sql.time_of(view, instant))
