"""Deliberate faults of the gateway, and the register of all faults: the simulation has to catch each one.

The table that ``python -m tests.simulation --faults`` prints stands in docs/simulation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from gateway.core.topics import Topics
from gateway.domain import acknowledgements, commands, devices, epoch, grants, heartbeats, message_batches
from gateway.errors import StoreError
from gateway.http.resources import devices as http_devices
from gateway.models.commands import CommandPayload
from gateway.models.states import CommandStatus
from gateway.mqtt import ingest
from gateway.mqtt.publisher import payload
from gateway.mqtt.reconciler import Reconciler
from gateway.mqtt.session import ReceivedMessage, Session
from gateway.store import Tx, command_sql, due_topic_sql, event_sql, outbox_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.device_cache import DeviceCache
from gateway.store.device_sql import DeviceRecord
from gateway.store.due_topic_sql import DueTopic
from gateway.store.records import DeviceKey
from gateway.store.token_sql import TokenRecord
from gateway.workers.presence import PresenceWorker
from tests.simulation.broker import Broker
from tests.simulation.broker_session import Peer
from tests.simulation.gateway_session import VirtualSession


@dataclass(frozen=True)
class Mutant:
    """What is done wrong, how it is planted, and which invariants (docs/simulation.md) may catch it.

    A ``clustered`` one shows only where several gateways share a registry and a broker, one of ``several_brokers``
    where the registry has several, and one of ``homes`` where devices have homes.
    """

    name: str
    apply: Callable[[], AbstractContextManager[Any]]
    invariants: frozenset[int]
    clustered: bool = False
    several_brokers: bool = False
    homes: bool = False


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(
    name: str, *invariants: int, clustered: bool = False, several_brokers: bool = False, homes: bool = False
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Decorator: a fault of this name, which one of these invariants has to catch."""

    def register(apply: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        caught_by = frozenset(invariants)
        MUTANTS[name] = Mutant(name, contextmanager(apply), caught_by, clustered, several_brokers, homes)
        return apply

    return register


# --- the outbox and the broker ----------------------------------------------------------------------------------------


@mutant("a new command is not put into the outbox", 3)
def _no_outbox_row() -> Iterator[None]:
    real = outbox_sql.mark_command

    def mark(tx: Tx, device_pk: int, command_type: str, **where: Any) -> None:
        if command_sql.open_of_type(tx, device_pk, command_type) is None:
            real(tx, device_pk, command_type, **where)

    with patch.object(outbox_sql, "mark_command", mark):
        yield


@mutant("a final command is not put into the outbox", 3)
def _not_cleared() -> Iterator[None]:
    real = outbox_sql.mark_command

    def mark(tx: Tx, device_pk: int, command_type: str, **where: Any) -> None:
        if command_sql.open_of_type(tx, device_pk, command_type) is not None:
            real(tx, device_pk, command_type, **where)

    with patch.object(outbox_sql, "mark_command", mark):
        yield


@mutant("a row that was marked again while it was published is dropped", 3)
def _marks_get_lost() -> Iterator[None]:
    seen: dict[int, tuple[str, int, str]] = {}
    due = due_topic_sql.due

    def remembering(*args: Any) -> list[DueTopic]:
        topics = due(*args)
        seen.update({topic.row.seq: (topic.row.kind, topic.row.device_pk, topic.row.detail) for topic in topics})
        return topics

    def done(tx: Tx, seqs: list[int]) -> None:
        for seq in seqs:
            what = seen.get(seq, ("", 0, ""))
            tx.run("DELETE FROM outbox WHERE seq = ? OR (kind = ? AND device_pk = ? AND detail = ?)", seq, *what)

    with patch.object(due_topic_sql, "due", remembering), patch.object(outbox_sql, "done", done):
        yield


@mutant("a command is published before it is committed", 3)
def _published_too_early() -> Iterator[None]:
    sessions: list[VirtualSession] = []
    start, queue = VirtualSession.__init__, commands.queue

    def remembered(self: VirtualSession, *args: Any) -> None:
        start(self, *args)
        sessions[:] = [self]

    def queued(tx: Tx, device: DeviceRecord, command_type: Any, **facts: Any) -> CommandPayload:
        command = queue(tx, device, command_type, **facts)
        row = command_sql.by_id(tx, command.id)
        assert row is not None
        for session in sessions:
            session.publish_now(Topics().command(device.id, command_type), payload(row))
        return command

    with ExitStack() as stack:
        stack.enter_context(patch.object(VirtualSession, "__init__", remembered))
        stack.enter_context(patch.object(commands, "queue", queued))
        stack.enter_context(patch.object(devices, "queue", queued))
        yield


@mutant("the comparison after a connect is left out", 3)
def _no_comparison() -> Iterator[None]:
    async def run(self: Reconciler, session: Session) -> None:
        del self, session

    with patch.object(Reconciler, "run", run):
        yield


@mutant("a bind that supersedes does not wait until the old reset is cleared", 3)
def _does_not_wait() -> Iterator[None]:
    real = http_devices._reset_to_clear  # noqa: SLF001 - a fault has no manners

    with ExitStack() as stack:
        stack.enter_context(patch.object(http_devices, "_reset_to_clear", lambda *given: (real(*given)[0], False)))
        stack.enter_context(patch.object(outbox_sql, "has", lambda *_, **__: False))
        yield


# --- what is acknowledged ---------------------------------------------------------------------------------------------


@mutant("messages are acknowledged to the broker before the commit", 4)
def _acknowledged_too_early() -> Iterator[None]:
    real = VirtualSession.receive_batch

    async def receive_batch(self: VirtualSession, *given: int) -> list[ReceivedMessage]:
        deliveries = await real(self, *given)
        self.acknowledge(deliveries)
        return deliveries

    with patch.object(VirtualSession, "receive_batch", receive_batch):
        yield


@mutant("the embedded broker sends a device its PUBACK before the gateway has the message", 4)
def _confirmed_too_early() -> Iterator[None]:
    def pay(self: Broker, peer: Peer) -> None:
        del self
        while peer.pending_pubacks:
            peer.pending_pubacks.popleft().confirm()

    with patch.object(Broker, "_send_pubacks", pay):
        yield


@mutant("the embedded broker accepts devices before the gateway has subscribed", 4)
def _heard_too_early() -> Iterator[None]:
    with patch.object(Broker, "_must_wait", lambda *_: False):
        yield


@mutant("messages that could not be stored are acknowledged all the same", 4)
def _not_stored() -> Iterator[None]:
    async def commit(self: Any, batch: Any) -> Any:
        try:
            store = self._store
            return await store.write_batch(lambda written: message_batches.process_batch(written, batch, self._topics))
        except StoreError:
            return len(batch), []

    with patch.object(ingest.Ingest, "_commit", commit):
        yield


# --- memory and receipts ----------------------------------------------------------------------------------------------


@mutant("a cached device survives its change", 1, 4, 5, 6, 8)
def _never_forgets() -> Iterator[None]:
    with patch.object(DeviceCache, "forget", lambda _: None), patch.object(DeviceCache, "open", lambda *_: None):
        yield


@mutant("an executed reset is believed without its receipt", 1)
def _no_receipt() -> Iterator[None]:
    with patch.object(acknowledgements, "_unproven", lambda *_: None):
        yield


@mutant("a reset carries the device's generation, not its token's", 5)
def _wrong_generation() -> Iterator[None]:
    real = commands.queue

    def queue(
        tx: Tx, device: DeviceRecord, command_type: Any, *, fetched_by: TokenRecord | None, **facts: Any
    ) -> CommandPayload:
        del fetched_by
        return real(tx, device, command_type, fetched_by=None, **facts)

    with patch.object(commands, "queue", queue), patch.object(devices, "queue", queue):
        yield


# --- states and events ------------------------------------------------------------------------------------------------


@mutant("a reset that was delivered can be cancelled", 1)
def _cancelled_too_late() -> Iterator[None]:
    real = commands.cancel

    def cancel(tx: Tx, device: DeviceRecord, command_id: str, actor: str, *, taken_in: bool = False) -> CommandRecord:
        command = commands.require(tx, device, command_id)
        if command.status == CommandStatus.DELIVERED:
            commands.close(tx, device, command, CommandStatus.CANCELLED, actor, event="command.cancelled")
            commands.revoke(tx, device, actor)
        return real(tx, device, command_id, actor, taken_in=taken_in)

    with patch.object(commands, "cancel", cancel):
        yield


@mutant("a cancel does not read the broker's backlog first", 1)
def _backlog_unread() -> Iterator[None]:
    real = commands.cancel

    def cancel(tx: Tx, device: DeviceRecord, command_id: str, actor: str, *, taken_in: bool = False) -> CommandRecord:
        del taken_in
        return real(tx, device, command_id, actor, taken_in=True)

    with patch.object(commands, "cancel", cancel):
        yield


@mutant("silence is judged before the backlog is read", 6)
def _judged_too_early() -> Iterator[None]:
    async def forgive(self: PresenceWorker, *, least_ms: int = 0) -> None:
        del self, least_ms

    async def judge(self: PresenceWorker) -> None:
        await self._store.write(heartbeats.sweep_presence, urgent=False)

    async def look(self: PresenceWorker) -> None:
        await self.judge()

    with ExitStack() as stack:
        for name, mutated in (("forgive", forgive), ("judge", judge), ("look", look)):
            stack.enter_context(patch.object(PresenceWorker, name, mutated))
        yield


@mutant("an unbind writes no event", 6)
def _no_event() -> Iterator[None]:
    real = event_sql.record

    def record(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> None:
        if kind != "device.unbound":
            real(tx, device, kind, actor, **facts)

    with patch.object(event_sql, "record", record):
        yield


@mutant("a device is taken offline in one transaction, and its event written in the next", 6)
def _event_comes_later() -> Iterator[None]:
    real = event_sql.record
    waiting: list[tuple[DeviceKey, str, str]] = []

    def record(tx: Tx, device: DeviceKey, kind: str, actor: str, **facts: Any) -> None:
        late, waiting[:] = [] if kind == "device.registered" else list(waiting), []  # another run begins with that
        for each in late:
            real(tx, *each)
        if kind == "device.offline":
            waiting.append((device, kind, actor))
        else:
            real(tx, device, kind, actor, **facts)

    with patch.object(event_sql, "record", record):
        yield


# --- a restore --------------------------------------------------------------------------------------------------------


@mutant("a restore begins no new epoch", 2)
def _no_epoch() -> Iterator[None]:
    with patch.object(epoch, "begin", lambda *_, **__: epoch.Epoch("", 0, 0, "")):
        yield


@mutant("a restore signs for existing bindings with its new key", 1)
def _all_get_the_new_key() -> Iterator[None]:
    real = grants.rotate

    def rotate(tx: Tx) -> str:
        kid = real(tx)
        tx.run("UPDATE tokens SET grant_kid = ?", kid)
        return kid

    with patch.object(grants, "rotate", rotate):
        yield
