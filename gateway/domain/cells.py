"""Home brokers: which one a bind chooses, moves, and a broker that takes no new devices (setting ``cells = home``).

A home is a fact of the device. It counts at every gateway, whatever its settings: only the home broker knows the
credential and is marked for changes. A device without a home is served by all brokers: one that was bound before, and
one that was never bound. The setting decides what a bind does, and in the mode ``any`` homes are given up again.

A move is a change of the registry. What the old and the new broker hold is marked in the same transaction. So a reset
that was accepted before is published at the new one, and cleared at the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.domain import brokers
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from gateway.store import broker_sql, device_sql, event_sql, home_sql, outbox_sql

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gateway.store import Tx, View
    from gateway.store.broker_sql import BrokerRecord
    from gateway.store.records import DeviceName

BATCH: Final = 500
"""Devices that are moved in one transaction: about 50 ms on SQLite."""


class Moved(NamedTuple):
    """What a move has done: ids of devices.

    ``wiping`` have the reset and are about to say that they are wiped. They stay where they can say so.
    """

    moved: list[str]
    unchanged: list[str]
    wiping: list[str]


# --- what a bind does -------------------------------------------------------------------------------------------------


def settle_home(tx: Tx, device_pk: int) -> BrokerRecord | None:
    """Give a device that is about to be bound its home, as the setting has it. Return the home, or None.

    Raises:
        UnavailableError: no broker takes new devices.
    """
    before = home_sql.of(tx, device_pk)
    home = _least_loaded(tx, before) if tx.rules.assigns_homes else None
    _assign(tx, [device_pk], before, None if home is None else home.pk)
    return home


def _least_loaded(tx: Tx, before: int | None) -> BrokerRecord:
    """Return the broker with the fewest devices, the present home if no other has fewer.

    Brokers that are there come first, as in :func:`gateway.store.broker_sql.awaited`.
    """
    every = [
        each
        for each in broker_sql.brokers(tx, tx.now)
        if each.left_out_at is None and not each.draining and each.host is not None
    ]
    there = [each for each in every if not each.is_away] or [each for each in every if each.owner is not None] or every
    if not there:
        raise UnavailableError(
            "No broker takes new devices: each is drained, or has had no gateway for long. Nothing was bound. "
            "'gateway cells list' shows them; 'gateway cells drain BROKER --undo' opens one again."
        )
    return min(there, key=lambda each: (each.devices - (each.pk == before), each.pk != before, each.pk))


def _assign(tx: Tx, device_pks: Sequence[int], before: int | None, to: int | None) -> None:
    """Change the home of these devices, and mark what the brokers hold that begin or cease to serve them."""
    if before == to:
        return
    home_sql.assign(tx, device_pks, before, to)
    ends = [each for each in (before, to) if each is not None]
    every = None in (before, to)
    outbox_sql.mark_everything(tx, device_pks, [b.pk for b in broker_sql.brokers(tx, tx.now)] if every else ends)


def home_of(tx: Tx, device_pk: int) -> BrokerRecord | None:
    """Return the only broker that serves this device, or None if all do."""
    pk = home_sql.of(tx, device_pk)
    return None if pk is None else broker_sql.by_pk(tx, pk, tx.now)


def facts(home: BrokerRecord | None) -> dict[str, str]:
    """Return what an event says of the home."""
    return {} if home is None else {"broker": home.id}


def forget_home(tx: Tx, device_pk: int) -> None:
    """Forget the home of a device that is deleted; what its broker has yet to clear is marked already."""
    home = home_sql.of(tx, device_pk)
    if home is not None:
        home_sql.assign(tx, [device_pk], home, None)


def release(tx: Tx, limit: int = BATCH) -> int:
    """Take the homes of some devices away, so that every broker serves them again. Return how many there were."""
    homes: dict[int, list[int]] = {}
    for each in home_sql.some(tx, limit):
        homes.setdefault(each.broker_pk, []).append(each.device_pk)
    for home, device_pks in homes.items():
        _assign(tx, device_pks, home, None)
    return sum(len(device_pks) for device_pks in homes.values())


# --- what operators do ------------------------------------------------------------------------------------------------


def move(tx: Tx, devices: Sequence[DeviceName], to: str, actor: str) -> Moved:
    """Make a broker the home of these devices. Those whose home it is already stay as they are.

    A device that has said ``delivered`` to a reset is wiping itself, and its session would be cut before it says so.
    It stays while its broker is there.

    Raises:
        NotFoundError: there is no such broker.
        ConflictError: the setting is ``any``, or the broker is drained or away.
    """
    every = {each.pk: each for each in broker_sql.brokers(tx, tx.now)}
    target = _target(tx, every.values(), to)
    pks = [each.pk for each in devices]
    homes, busy = home_sql.of_many(tx, pks), home_sql.wiping(tx, pks)
    busy = {pk for pk in busy if homes.get(pk) is None or not every[homes[pk]].is_away}
    moving = [each for each in devices if homes.get(each.pk) != target.pk and each.pk not in busy]
    for before in {homes.get(each.pk) for each in moving}:
        _assign(tx, [each.pk for each in moving if homes.get(each.pk) == before], before, target.pk)
    names = {pk: broker.id for pk, broker in every.items()}
    event_sql.insert(
        tx,
        [
            event_sql.of_device(
                tx, each, "device.moved", actor, from_broker=names.get(homes.get(each.pk, 0)), to_broker=to
            )
            for each in moving
        ],
    )
    return Moved(
        [each.id for each in moving],
        [each.id for each in devices if homes.get(each.pk) == target.pk],
        [each.id for each in devices if homes.get(each.pk) != target.pk and each.pk in busy],
    )


def move_some(
    tx: Tx, from_broker: str, to: str, actor: str, *, after: int = 0, project_id: str | None = None, limit: int = BATCH
) -> tuple[Moved, int | None]:
    """Move the next devices of a broker, by row numbers after ``after``. Return also where to go on, or None.

    Raises:
        InvalidRequestError: both are the same broker.
        NotFoundError: there is no such broker.
        ConflictError: as in :func:`move`.
    """
    if from_broker == to:
        raise InvalidRequestError("to: is the broker that the devices are to leave.", details={"field": "to"})
    source = brokers.require(broker_sql.brokers(tx, tx.now), from_broker)
    devices = home_sql.at(tx, source.pk, after, limit, project_id)
    return move(tx, devices, to, actor), devices[-1].pk if len(devices) == limit else None


def named(view: View, project_id: str | None, device_ids: Collection[str]) -> list[DeviceName]:
    """Return the devices with these ids, of one project or of all.

    Raises:
        NotFoundError: there is no such device.
    """
    found = device_sql.names_of(view, device_ids, project_id)
    unknown = sorted(set(device_ids) - {each.id for each in found})
    if unknown:
        raise NotFoundError(
            f"There is no device '{unknown[0][:80]}'. Nothing was moved.", details={"device_ids": unknown[:10]}
        )
    return found


def _target(tx: Tx, every: Iterable[BrokerRecord], to: str) -> BrokerRecord:
    if not tx.rules.assigns_homes:
        raise _without_homes()
    target = brokers.require(every, to)
    if target.draining:
        raise ConflictError(
            "broker_draining",
            f"The broker '{to}' is drained, so it takes no devices. Open it again with 'gateway cells drain {to} "
            "--undo', or choose another one.",
        )
    if target.is_away or target.host is None:
        raise ConflictError(
            "broker_away",
            f"The broker '{to}' is away: no gateway is connected to it, so devices could not connect there yet. Start "
            "its gateway, or choose another broker.",
        )
    return target


def _without_homes() -> ConflictError:
    return ConflictError(
        "no_home_brokers",
        "The setting 'cells' is 'any': every broker serves every device, so there is nothing to move or to drain. Set "
        "it to 'home' at all gateways first ('gateway docs scaling').",
    )


def drain(tx: Tx, broker_id: str, actor: str, *, draining: bool) -> BrokerRecord:
    """Let no bind and no move choose this broker any more, or let them again. Return the broker.

    Raises:
        NotFoundError: there is no such broker.
        ConflictError: the setting is ``any``, or no other broker would take devices.
    """
    if not tx.rules.assigns_homes:
        raise _without_homes()
    every = broker_sql.brokers(tx, tx.now)
    broker = brokers.require(every, broker_id)
    if bool(broker.draining) == draining:
        return broker
    if draining and all(each.draining for each in every if each.pk != broker.pk):
        raise ConflictError(
            "last_broker",
            f"'{broker_id}' is the last broker that takes new devices: no device could be bound any more. Start "
            "another one, or open one again.",
        )
    broker_sql.set_draining(tx, broker.pk, draining=draining)
    event_sql.record_administrative(
        tx, event_sql.REGISTRY, "broker.updated", actor, broker_id=broker_id, draining=draining
    )
    return broker._replace(draining=int(draining))
