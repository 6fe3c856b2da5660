"""Deliberate faults of leases, epochs and take-overs, which only runs with several gateways can show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from unittest.mock import patch

from gateway.cluster.lease import Lease, Work
from gateway.domain import backlog
from gateway.mqtt.connect import BrokerAddress, Session
from gateway.mqtt.reconciler import Reconciler
from gateway.store import Store, Tx, View, due_topic_sql, event_sql, lease_sql, outbox_sql, writer
from gateway.store.dialect import SQLITE
from gateway.store.due_topic_sql import DueTopic
from gateway.store.lease_sql import FLEET, Fence, Holder
from gateway.workers.change_poller import ChangePoller
from tests.simulation.disk import VirtualWriter
from tests.simulation.gateway_host import VirtualConnection
from tests.simulation.mutants import mutant
from tests.simulation.shared_registry import Line

_BLOCK: Final = 1_000
"""Numbers of events that the planted sequence gives at a time."""


# --- leases -----------------------------------------------------------------------------------------------------------


@mutant("a commit does not check the epoch of its lease", 10, clustered=True)
def _no_epoch_check() -> Iterator[None]:
    with patch.object(writer, "require", lambda *_: None):
        yield


@mutant("a lease goes by the clock of the gateway", 10, clustered=True)
def _own_clock() -> Iterator[None]:
    with patch.object(Line, "dialect", SQLITE):
        yield


@mutant("a renewal of a lease is not written", 10, clustered=True)
def _not_renewed() -> Iterator[None]:
    with patch.object(lease_sql, "renew", lambda *_: True):
        yield


@mutant("a lease is renewed by a gateway that does not hold it", 10, clustered=True)
def _renewed_by_anyone() -> Iterator[None]:
    def renew(tx: Tx, fence: Fence, lease_ms: int) -> bool:
        return tx.run("UPDATE leases SET until = until + ? WHERE name = ?", lease_ms, fence.name).rowcount == 1

    with patch.object(lease_sql, "renew", renew):
        yield


@mutant("a former owner releases the lease of its successor", 10, clustered=True)
def _released_by_anyone() -> Iterator[None]:
    def release(tx: Tx, fence: Fence) -> None:
        tx.run("UPDATE leases SET until = 0 WHERE name = ?", fence.name)

    with patch.object(lease_sql, "release", release):
        yield


@mutant("a take-over keeps the epoch", 10, clustered=True)
def _same_epoch() -> Iterator[None]:
    with _changed_statement("epoch = leases.epoch + 1", "epoch = leases.epoch"):
        yield


@mutant("a lease is taken from the gateway that holds it", 10, clustered=True)
def _stolen() -> Iterator[None]:
    with (
        _changed_statement("leases.until <=", "leases.until > 0 OR leases.until <="),
        patch.object(lease_sql, "is_free", lambda *_: True),
    ):
        yield


def _changed_statement(text: str, other: str) -> Any:
    real = Tx.value

    def value(tx: Tx, sql: str, *values: object) -> object:
        return real(tx, sql.replace(text, other), *values)

    return patch.object(Tx, "value", value)


@mutant("a clean stop does not release its leases", 10, clustered=True)
def _not_released() -> Iterator[None]:
    async def release(self: Lease, fence: Fence) -> None:
        del fence
        self._lost.set()

    with patch.object(Lease, "_release", release), patch.object(lease_sql, "deregister", _deregistered_alone):
        yield


def _deregistered_alone(tx: Tx, holder: Holder) -> None:
    tx.run("DELETE FROM gateways WHERE gateway_id = ? AND instance = ?", *holder)


# --- the broker -------------------------------------------------------------------------------------------------------


@mutant("a former owner is not fenced at the broker: each gateway has its own client id", 10, clustered=True)
def _other_client_id() -> Iterator[None]:
    def opened(
        self: VirtualConnection, address: BrokerAddress, will: tuple[str, bytes]
    ) -> AbstractAsyncContextManager[Session]:
        return self.open(address, client_id=f"gw_{self._instance}", will=will)

    with patch.object(VirtualConnection, "opened", opened):
        yield


@mutant("the comparison after a take-over is left out", 1, 3, clustered=True)
def _not_compared() -> Iterator[None]:
    real = Reconciler.run

    async def run(self: Reconciler, session: Session) -> None:
        epochs = await self._store.read(lambda view: view.value("SELECT max(epoch) FROM leases WHERE name <> ?", FLEET))
        if epochs in (None, 1):
            await real(self, session)

    with patch.object(Reconciler, "run", run):
        yield


@mutant("a publisher skips what another gateway had begun with", 1, 3, clustered=True)
def _skips_claimed() -> Iterator[None]:
    due, done = due_topic_sql.due, outbox_sql.done

    def claims_at(connection: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = vars(connection.disk).setdefault("claims", {}) if isinstance(connection, Line) else {}
        return found

    def claimed(view: View, *given: int) -> list[DueTopic]:
        line, claims = view.connection, claims_at(view.connection)
        topics = [each for each in due(view, *given) if claims.setdefault(each.row[1:4], line) is line]
        claims.update({each.row.seq: each.row[1:4] for each in topics})
        return topics

    def ended(tx: Tx, seqs: list[int]) -> None:
        claims = claims_at(tx.connection)
        for seq in seqs:
            claims.pop(claims.pop(seq, None), None)
        done(tx, seqs)

    with patch.object(due_topic_sql, "due", claimed), patch.object(outbox_sql, "done", ended):
        yield


# --- commits of others ------------------------------------------------------------------------------------------------


@mutant("the owner does not notice what another gateway has committed", 1, 3, 5, clustered=True)
def _unnoticed() -> Iterator[None]:
    async def look(self: ChangePoller) -> None:
        del self

    with patch.object(ChangePoller, "look", look):
        yield


@mutant("a gateway that stands by does not ask the owner for the backlog", 1, clustered=True)
def _unasked() -> Iterator[None]:
    async def ask(store: Store, seconds: float) -> bool:
        del store, seconds
        return True

    with patch.object(backlog, "ask", ask):
        yield


@mutant("the number of an event is drawn before the lock", 10, clustered=True)
def _drawn_too_early() -> Iterator[None]:
    schedule, insert = VirtualWriter._schedule_turn, event_sql.insert  # noqa: SLF001 - a fault has no manners
    drawn: dict[Any, int] = {}

    def scheduled(self: VirtualWriter) -> None:
        if not self._due:
            drawn[self._connection] = last = vars(self.disk).get("drawn", 0) + _BLOCK
            vars(self.disk)["drawn"] = last
        schedule(self)

    def inserted(tx: Tx, events: Sequence[event_sql.NewEvent]) -> None:
        insert(tx, events)
        for event in events if tx.connection in drawn else ():
            tx.run("UPDATE events SET seq = ? WHERE id = ?", drawn[tx.connection], event.id)
            drawn[tx.connection] += 1

    with patch.object(VirtualWriter, "_schedule_turn", scheduled), patch.object(event_sql, "insert", inserted):
        yield


# --- the fleet --------------------------------------------------------------------------------------------------------


@mutant("two gateways do the work of the fleet at once", 10, clustered=True)
def _two_fleet_workers() -> Iterator[None]:
    real = Lease.run

    async def run(self: Lease, work: Work) -> None:
        if self.name == FLEET:
            await asyncio.gather(real(self, work), work(self._store))
        else:
            await real(self, work)

    with patch.object(Lease, "run", run):
        yield
