"""SQL of leases and of the gateways of a registry (contract, section 6).

A lease belongs to one running process at a time. Its ``epoch`` grows each time it is taken, so what a former owner
began can be told from what the present one does. All times are by the clock of the database, never by a gateway's: the
clocks of two machines differ. On SQLite there is one process, and its clock is that of the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.errors import StoreError
from gateway.store import measurements

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

FLEET: Final = "fleet"
"""Lease of the fleet worker."""
_BROKER: Final = "broker:"
FORGOTTEN_MS: Final = 86_400_000
"""A gateway that was not seen for a day is dropped from the list."""


class LeaseLostError(StoreError):
    """Another gateway has taken the lease, or this one has given it up; nothing was changed."""


class Holder(NamedTuple):
    """A process that takes leases: the id of its gateway, and a name that no other process ever has."""

    gateway_id: str
    instance: str


class Fence(NamedTuple):
    """A lease as one process took it. A write under it commits while it is the present one."""

    name: str
    instance: str
    epoch: int


class LeaseRecord(NamedTuple):
    """A lease; times are milliseconds since the epoch. ``until`` is 0 when it was handed over."""

    name: str
    gateway_id: str
    instance: str
    epoch: int
    until: int
    taken_at: int


class GatewayRecord(NamedTuple):
    """A gateway of this registry; times are milliseconds since the epoch. ``http`` is its address."""

    gateway_id: str
    instance: str
    version: str
    host: str
    http: str
    broker_id: str
    started_at: int
    seen_at: int


def of_broker(broker_id: str) -> str:
    """Return the name of the lease of a broker's owner."""
    return f"{_BROKER}{broker_id}"


def kind_of(name: str) -> str:
    """Return the kind of a lease: ``broker`` or ``fleet``."""
    return name.partition(":")[0]


def time_of(view: View, instant: int) -> int:
    """Return the time by the clock of the database; ``instant`` is that of this process."""
    now: int = view.value(f"SELECT {view.dialect.now(instant)}")
    return now


# --- leases ---------------------------------------------------------------------------------------------------------


def is_free(view: View, name: str, holder: Holder, instant: int) -> bool:
    """Return whether this process can take the lease now; ``instant`` is the time by its clock."""
    now = view.dialect.now(instant)
    taken = f"SELECT 1 FROM leases WHERE name = ? AND instance <> ? AND until > {now}"  # noqa: S608 - our own
    return view.value(taken, name, holder.instance) is None


def acquire(tx: Tx, name: str, holder: Holder, lease_ms: int) -> Fence | None:
    """Take a lease that is free, for so many milliseconds; return None where another process holds it."""
    now = tx.dialect.now(tx.now)
    if tx.dialect.claim:
        tx.run(f"SELECT 1 FROM leases WHERE name = ?{tx.dialect.claim}", name)  # noqa: S608 - our own
    epoch = tx.value(
        f"""INSERT INTO leases (name, gateway_id, instance, epoch, until, taken_at)
            VALUES (?1, ?2, ?3, 1, {now} + ?4, {now})
            ON CONFLICT (name) DO UPDATE SET gateway_id = excluded.gateway_id, instance = excluded.instance,
                epoch = leases.epoch + 1, until = excluded.until, taken_at = excluded.taken_at
                WHERE leases.until <= {now} OR leases.instance = excluded.instance
            RETURNING epoch""",  # noqa: S608 - our own expression
        *(name, *holder, lease_ms),
    )
    if epoch is None:
        return None
    tx.measure(measurements.LEASE, kind_of(name))
    return Fence(name, holder.instance, epoch)


def renew(tx: Tx, fence: Fence, lease_ms: int) -> bool:
    """Hold the lease for so many milliseconds from now; return False when it is another's."""
    changed = tx.run(
        f"""UPDATE leases SET until = {tx.dialect.now(tx.now)} + ?4
            WHERE name = ?1 AND instance = ?2 AND epoch = ?3""",  # noqa: S608 - our own expression
        *(*fence, lease_ms),
    )
    return changed.rowcount == 1


def release(tx: Tx, fence: Fence) -> None:
    """Hand the lease over: another process may take it at once."""
    tx.run("UPDATE leases SET until = 0 WHERE name = ? AND instance = ? AND epoch = ?", *fence)


def require(view: View, fence: Fence) -> None:
    """Check that the lease is still the one that this work began with, and keep it so until the commit.

    Raises:
        LeaseLostError: it is not.
    """
    held = f"SELECT 1 FROM leases WHERE name = ? AND instance = ? AND epoch = ?{view.dialect.share}"  # noqa: S608 - our own
    if view.value(held, *fence) is None:
        raise LeaseLostError(
            f"Another gateway has taken the lease '{fence.name}' (this one had epoch {fence.epoch}). Nothing was "
            "changed."
        )


def leases(view: View) -> list[LeaseRecord]:
    """Return all leases, by name."""
    return view.records(
        LeaseRecord, "SELECT name, gateway_id, instance, epoch, until, taken_at FROM leases ORDER BY name"
    )


# --- gateways -------------------------------------------------------------------------------------------------------


def register(tx: Tx, gateway: GatewayRecord, lapse_ms: int) -> bool:
    """Register a gateway that starts; return False while another process is registered under its id.

    A registration that was not renewed for ``lapse_ms`` is replaced. The times in ``gateway`` are not used.
    """
    now = tx.dialect.now(tx.now)
    tx.run(f"DELETE FROM gateways WHERE seen_at < {now} - ?", FORGOTTEN_MS)  # noqa: S608 - our own expression
    changed = tx.run(
        f"""INSERT INTO gateways (gateway_id, instance, version, host, http, broker_id, started_at, seen_at)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, {now}, {now})
            ON CONFLICT (gateway_id) DO UPDATE SET instance = excluded.instance, version = excluded.version,
                host = excluded.host, http = excluded.http, broker_id = excluded.broker_id,
                started_at = excluded.started_at, seen_at = excluded.seen_at
                WHERE gateways.seen_at <= {now} - ?7""",  # noqa: S608 - our own expression
        *(*gateway[:6], lapse_ms),
    )
    return changed.rowcount == 1


def see(tx: Tx, holder: Holder) -> bool:
    """Renew a registration; return False when another process has the id by now."""
    now = tx.dialect.now(tx.now)
    changed = tx.run(f"UPDATE gateways SET seen_at = {now} WHERE gateway_id = ? AND instance = ?", *holder)  # noqa: S608
    return changed.rowcount == 1


def deregister(tx: Tx, holder: Holder) -> None:
    """Remove the registration of a process that ends, and hand over each lease that it still holds."""
    tx.run("UPDATE leases SET until = 0 WHERE instance = ?", holder.instance)
    tx.run("DELETE FROM gateways WHERE gateway_id = ? AND instance = ?", *holder)


def forget_all(tx: Tx) -> None:
    """Free all leases and drop all registrations: no other process can be at work on this registry."""
    tx.run("UPDATE leases SET until = 0 WHERE until <> 0")
    tx.run("DELETE FROM gateways")


def registered(view: View, gateway_id: str) -> GatewayRecord | None:
    """Return the gateway that is registered under this id, if any."""
    return next((each for each in gateways(view) if each.gateway_id == gateway_id), None)


def gateways(view: View) -> list[GatewayRecord]:
    """Return all gateways, by id."""
    return view.records(
        GatewayRecord,
        """SELECT gateway_id, instance, version, host, http, broker_id, started_at, seen_at FROM gateways
            ORDER BY gateway_id""",
    )
