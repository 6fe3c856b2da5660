"""Deliberate faults that only runs with home brokers can show."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from unittest.mock import patch

from gateway.domain import cells
from gateway.http.operation import RequestContext
from gateway.http.resources import token_refresh
from gateway.mqtt import command_pages
from gateway.store import Tx, View, broker_entry_sql, broker_sql, home_sql, outbox_sql
from gateway.store.broker_sql import BrokerRecord
from tests.simulation.mutants import mutant


@mutant("a move marks the new home alone", 3, 5, 12, homes=True)
def _new_home_alone() -> Iterator[None]:
    def assign(tx: Tx, device_pks: Sequence[int], before: int | None, to: int | None) -> None:
        if before != to:
            home_sql.assign(tx, device_pks, before, to)
            outbox_sql.mark_everything(tx, device_pks, [] if to is None else [to])

    with patch.object(cells, "_assign", assign):
        yield


@mutant("a move leaves the open commands behind", 3, homes=True)
def _commands_left_behind() -> Iterator[None]:
    def mark(tx: Tx, device_pks: Sequence[int], brokers: Iterable[int]) -> None:
        for broker in brokers:
            for device_pk in device_pks:
                outbox_sql.mark_credential(tx, device_pk, broker=broker)
                outbox_sql.mark_topic(tx, device_pk, outbox_sql.STATUS, broker=broker)
            outbox_sql.mark_all_mirrors(tx, device_pks, outbox_sql.STATE, broker=broker)
            outbox_sql.mark_all_mirrors(tx, device_pks, outbox_sql.DISCOVERY, broker=broker)

    with patch.object(outbox_sql, "mark_everything", mark):
        yield


@mutant("each broker knows every credential", 12, homes=True)
def _known_everywhere() -> Iterator[None]:
    with patch.object(broker_entry_sql, "serves", lambda _, broker: f"{broker} IS NOT NULL"):
        yield


@mutant("a comparison leaves the commands of devices that were moved", 3, homes=True)
def _left_by_a_comparison() -> Iterator[None]:
    with patch.object(command_pages, "served_elsewhere", lambda *_: set()):
        yield


@mutant("a bind chooses a broker that is drained", 12, homes=True)
def _drained_is_chosen() -> Iterator[None]:
    real = broker_sql.brokers

    def chosen(tx: Tx, before: int | None) -> BrokerRecord:
        del before
        there = [each for each in real(tx, tx.now) if each.left_out_at is None and each.host is not None]
        return min(there, key=lambda each: (each.devices, each.pk))

    with patch.object(cells, "_least_loaded", chosen):
        yield


@mutant("a refresh names the broker of the gateway that answers", 12, homes=True)
def _names_its_own() -> Iterator[None]:
    def address(call: RequestContext, home: BrokerRecord | None) -> tuple[str, int, bool]:
        del home
        return call.services.broker_address()

    with patch.object(token_refresh, "device_address", address):
        yield


@mutant("a move does not count at the home that is left", 12, homes=True)
def _counted_at_one() -> Iterator[None]:
    real = home_sql.assign

    def assign(tx: Tx, device_pks: Collection[int], before: int | None, to: int | None) -> None:
        real(tx, device_pks, before, to)
        if before is not None and to is not None:
            tx.run("UPDATE brokers SET devices = devices + ? WHERE pk = ?", len(device_pks), before)

    with patch.object(home_sql, "assign", assign):
        yield


@mutant("moves are forgotten at a broker that was left out", 3, 12, homes=True)
def _moves_forgotten() -> Iterator[None]:
    def moved(view: View, since: int) -> list[int]:
        del view, since
        return []

    with patch.object(home_sql, "moved_since", moved):
        yield
