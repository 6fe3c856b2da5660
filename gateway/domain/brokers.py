"""Brokers of a registry: how one begins, is left out while it is away for long, and is removed (contract, section 6).

Nothing waits for a broker that is away: without an owner, or with one that is not connected. After :data:`AWAY_MS`
nothing more is marked for it, and what was marked is dropped, so that its rows do not grow. When it is back its owner
compares everything: commands, accounts, sessions, states and the statuses of ended bindings. The last broker that is
there is never left out, so with one broker nothing of this happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import DAY_MS, MINUTE_MS
from gateway.core.command_types import CommandType
from gateway.core.text import count
from gateway.errors import ConflictError, NotFoundError
from gateway.store import (
    broker_sql,
    command_sql,
    device_sql,
    home_sql,
    lease_sql,
    outbox_sql,
    reset_sql,
    token_sql,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.store import Tx, View
    from gateway.store.broker_sql import BrokerRecord

AWAY_MS: Final = 10 * MINUTE_MS
"""A broker that is away for so long is left out."""
SEEN_MS: Final = MINUTE_MS
"""A gateway that renewed its registration within this time may be at work."""
_OVERLAP_MS: Final = DAY_MS
"""The clocks of gateways may differ."""
_PIECE: Final = 2_000
"""Rows that are dropped in one transaction."""


class DeviceAddress(NamedTuple):
    """How devices reach a broker."""

    host: str
    port: int
    tls: bool


def begin(tx: Tx, broker_id: str, *, knows_tokens: bool, address: DeviceAddress) -> int:
    """Begin to serve a broker, before it is compared; return its number. From now on changes are marked for it.

    ``knows_tokens``: it accepts a new token once it is in step.
    """
    pk = broker_sql.join(tx, broker_id)
    broker_sql.set_address(tx, pk, address.host, address.port, tls=address.tls)
    before = broker_sql.find(tx, broker_id, tx.now)
    broker_sql.follow(tx, pk, knows_tokens=knows_tokens)
    if before is not None and before.left_out_at is not None:
        for device_pk in _ended_since(tx, before.left_out_at - AWAY_MS - _OVERLAP_MS):
            outbox_sql.mark_topic(tx, device_pk, outbox_sql.STATUS, broker=pk)
            outbox_sql.mark_credential(tx, device_pk, broker=pk)
    return pk


def _ended_since(tx: Tx, since: int) -> set[int]:
    """Return the devices that were bound, revoked, deleted or moved since then: no comparison finds their status."""
    gone = {*device_sql.deleted_since(tx, since), *token_sql.changed_since(tx, since)}
    return gone | set(home_sql.moved_since(tx, since))


def needs_care(view: View, instant: int) -> bool:
    """Return whether :func:`care` has something to do; ``instant`` is the time of this process."""
    now, every = lease_sql.time_of(view, instant), broker_sql.brokers(view, instant)
    return any(_differs(each) or _is_overdue(each, now, every) for each in every)


def care(tx: Tx) -> list[str]:
    """Note which brokers are away, and leave out those that were for long. Return the ids of these."""
    now, every = lease_sql.time_of(tx, tx.now), broker_sql.brokers(tx, tx.now)
    left_out = []
    for each in every:
        if _differs(each):
            broker_sql.note_away(tx, each.pk, away=each.is_away)
        if _is_overdue(each, now, every):
            broker_sql.leave_out(tx, each.pk)
            left_out.append(each.id)
    return left_out


def _differs(broker: BrokerRecord) -> bool:
    return broker.is_away != (broker.away_since is not None)


def _is_overdue(broker: BrokerRecord, now: int, every: Iterable[BrokerRecord]) -> bool:
    away = broker.away_since
    if not broker.is_away or broker.left_out_at is not None or away is None or away + AWAY_MS > now:
        return False
    return any(not each.is_away for each in every)


def has_rows_to_drop(view: View) -> bool:
    """Return whether rows of a broker that is left out are still there."""
    return outbox_sql.has_left_out(view)


def drop_rows(tx: Tx) -> int:
    """Drop some rows of brokers that are left out; return how many. What only they lacked is done by that."""
    rows = outbox_sql.drop_left_out(tx, _PIECE)
    closed = {row.device_pk for row in rows if row.kind == outbox_sql.CREDENTIAL}
    cleared = [row for row in rows if (row.kind, row.detail) == (outbox_sql.COMMAND, CommandType.FACTORY_RESET)]
    reset_sql.set_sessions_closed(tx, [pk for pk in closed if not token_sql.live(tx, pk)])
    reset_sql.set_retained_cleared(
        tx, [row.device_id for row in cleared if command_sql.open_of_type(tx, row.device_pk, row.detail) is None]
    )
    return len(rows)


def require(every: Iterable[BrokerRecord], broker_id: str) -> BrokerRecord:
    """Return the broker of this id.

    Raises:
        NotFoundError: there is no such broker.
    """
    known = {each.id: each for each in every}
    if broker_id not in known:
        raise NotFoundError(
            f"There is no broker '{broker_id[:80]}' in this registry. It has: {', '.join(known)}.",
            details={"brokers": list(known)},
        )
    return known[broker_id]


def forget(tx: Tx, broker_id: str) -> None:
    """Remove a broker that is gone, with all that is kept of it.

    Raises:
        NotFoundError: there is no such broker.
        ConflictError: it has an owner, a gateway is registered for it, it is the only one, or the home of devices.
    """
    every = broker_sql.brokers(tx, tx.now)
    broker = require(every, broker_id)
    _may_forget(tx, broker)
    if broker.devices:
        raise ConflictError(
            "broker_in_use",
            f"'{broker_id}' is the home of {count(broker.devices, 'device')}. Move them first: 'gateway cells move "
            f"--all-from {broker_id} --to BROKER'.",
            details={"devices": broker.devices},
        )
    heir = next((each for each in every if each.pk != broker.pk), None)
    if heir is None:
        raise ConflictError("broker_in_use", f"'{broker_id}' is the only broker of this registry. It stays.")
    broker_sql.remove(tx, broker, heir.pk)


def _may_forget(tx: Tx, broker: BrokerRecord) -> None:
    now = lease_sql.time_of(tx, tx.now)
    names = [
        each.gateway_id
        for each in lease_sql.gateways(tx)
        if each.broker_id == broker.id and now - each.seen_at < SEEN_MS
    ]
    names = names or ([] if broker.owner is None else [broker.owner])
    if names:
        raise ConflictError(
            "broker_in_use",
            f"The broker '{broker.id}' is served by {', '.join(names)}. Stop these gateways first, and the broker too: "
            "it would go on accepting tokens that are revoked later.",
        )
