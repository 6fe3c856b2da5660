"""Deliberate faults that only runs with several brokers at one registry can show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from unittest.mock import patch

from gateway.domain import backlog, brokers
from gateway.mqtt.reconciler import Reconciler
from gateway.mqtt.session import Session
from gateway.store import Tx, View, broker_sql, command_sql, event_sql, health_sql, outbox_sql
from tests.simulation.mutants import mutant

_FIRST: Final = 1


# --- marks ------------------------------------------------------------------------------------------------------------


@mutant("a change is marked for the first broker alone", 3, 5, several_brokers=True)
def _first_alone() -> Iterator[None]:
    with patch.object(outbox_sql, "FOLLOWED", "FROM brokers b WHERE b.pk = 1"):
        yield


@mutant("a command is cleared at the broker alone where the device reported it", 3, several_brokers=True)
def _cleared_at_one() -> Iterator[None]:
    real = outbox_sql.mark_command

    def mark(tx: Tx, device_pk: int, command_type: str, *, broker: int | None = None, **turn: Any) -> None:
        is_final = command_sql.open_of_type(tx, device_pk, command_type) is None
        real(tx, device_pk, command_type, broker=tx.context.broker if is_final else broker, **turn)

    with patch.object(outbox_sql, "mark_command", mark):
        yield


@mutant("what one broker has done is dropped for each", 3, 5, 10, several_brokers=True)
def _done_for_each() -> Iterator[None]:
    def done(tx: Tx, seqs: list[int]) -> None:
        same = "SELECT kind, device_pk, detail FROM outbox WHERE seq = ?"
        tx.run_many(f"DELETE FROM outbox WHERE (kind, device_pk, detail) IN ({same})", [(seq,) for seq in seqs])  # noqa: S608

    with patch.object(outbox_sql, "done", done):
        yield


# --- brokers that are away --------------------------------------------------------------------------------------------


@mutant("a broker that is back is not compared", 3, several_brokers=True)
def _not_compared() -> Iterator[None]:
    real, compared = Reconciler.run, "SELECT compared_at FROM brokers WHERE pk = ?"

    async def run(self: Reconciler, session: Session) -> None:
        broker = self._store.context.broker
        if await self._store.read(lambda view: view.value(compared, broker)) is None:
            await real(self, session)
        else:
            await self._store.write(lambda tx: broker_sql.note_compared(tx, broker))

    with patch.object(Reconciler, "run", run):
        yield


@mutant("a broker that is left out stays so when it is back", 3, 6, several_brokers=True)
def _left_out_for_ever() -> Iterator[None]:
    def follow(tx: Tx, pk: int, *, knows_tokens: bool) -> None:
        tx.run("UPDATE brokers SET connected = 0, knows_tokens = ? WHERE pk = ?", int(knows_tokens), pk)

    with patch.object(broker_sql, "follow", follow):
        yield


@mutant("a broker that is back is left out again during its comparison", 3, 6, several_brokers=True)
def _left_out_again() -> Iterator[None]:
    def follow(tx: Tx, pk: int, *, knows_tokens: bool) -> None:
        values = (int(knows_tokens), pk)
        tx.run("UPDATE brokers SET left_out_at = NULL, connected = 0, knows_tokens = ? WHERE pk = ?", *values)

    with patch.object(broker_sql, "follow", follow):
        yield


@mutant("a bind waits for a broker that is away", 11, several_brokers=True)
def _waits_for_all() -> Iterator[None]:
    with patch.object(broker_sql, "awaited", broker_sql.brokers):
        yield


@mutant("a bind waits for the first broker alone", 3, 5, several_brokers=True)
def _waits_for_one() -> Iterator[None]:
    real = broker_sql.awaited

    def awaited(view: View, instant: int) -> list[broker_sql.BrokerRecord]:
        return [each for each in real(view, instant) if each.pk == _FIRST] or real(view, instant)

    with patch.object(broker_sql, "awaited", awaited):
        yield


@mutant("a cancel reads the backlog of one broker alone", 1, several_brokers=True)
def _one_backlog() -> Iterator[None]:
    with patch.object(backlog, "is_shared", lambda *_, **__: False):
        yield


@mutant("the statuses of ended bindings are forgotten at a broker that was left out", 3, several_brokers=True)
def _statuses_forgotten() -> Iterator[None]:
    def ended(tx: Tx, since: int) -> Iterable[int]:
        del tx, since
        return ()

    with patch.object(brokers, "_ended_since", ended):
        yield


# --- presence and events ----------------------------------------------------------------------------------------------


@mutant("a last will counts from any broker", 6, several_brokers=True)
def _any_will() -> Iterator[None]:
    def leaving(tx: Tx, device_pk: int, offline_due_at: int) -> None:
        tx.run(
            """UPDATE health SET offline_due_at = min(offline_due_at, ?), at_broker = 0
                WHERE device_pk = ? AND connection = 'online'""",
            *(offline_due_at, device_pk),
        )

    with patch.object(health_sql, "leaving", leaving):
        yield


@mutant("the brokers share one place among the events", 6, several_brokers=True)
def _shared_place() -> Iterator[None]:
    fact, set_fact = broker_sql.fact, broker_sql.set_fact

    def place(pk: int, key: str) -> int:
        return _FIRST if key == event_sql.FEED_CURSOR else pk

    def read(view: View, pk: int, key: str) -> str | None:
        return fact(view, place(pk, key), key)

    def write(tx: Tx, pk: int, key: str, value: str) -> None:
        set_fact(tx, place(pk, key), key, value)

    with patch.object(broker_sql, "fact", read), patch.object(broker_sql, "set_fact", write):
        yield
