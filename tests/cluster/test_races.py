"""Two gateways change one device at the same time, on PostgreSQL: the result is that of some serial order.

The first is held inside its transaction, after its verb and before its commit, until the second is at the database and
waits. So each pair meets in the same way each time. The result is compared with the same two verbs one after the other.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.domain import commands, devices, messages, plain_heartbeats
from gateway.errors import GatewayError
from gateway.models.commands import CreateCommand
from gateway.models.devices import RegisterDevice
from gateway.store import Batch, Context, Store, Tx, View, broker_sql, device_sql, key_sql, outbox_sql, token_sql
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.begin import BEGIN, IDLE_MS
from gateway.store.postgres.connection import PostgresConnection
from tests.domain.support import receipt
from tests.support.comparison import compare
from tests.support.postgres import database
from tests.support.wait import eventually

WAITING = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND (wait_event = 'advisory')::int = ?"""
NAMES = Topics()


@dataclass(frozen=True)
class Subject:
    """A bound device with an open reboot."""

    project_id: str
    id: str
    pk: int
    token: str
    token_id: int
    command_id: str


Verb = Callable[[Tx, Subject], object]


def _bind(tx: Tx, it: Subject) -> object:
    return devices.bind(tx, it.project_id, it.id, "eu_2", "key_1")


def _unbind(tx: Tx, it: Subject) -> object:
    return devices.unbind(tx, it.project_id, it.id, "key_1")


def _reset(tx: Tx, it: Subject) -> object:
    return devices.reset(tx, it.project_id, it.id, "key_1")


def _supersede(tx: Tx, it: Subject) -> object:
    devices.supersede_reset(tx, it.project_id, it.id, "key_1")
    return devices.bind(tx, it.project_id, it.id, "eu_3", "key_1")


def _say(tx: Tx, topic: str, **body: object) -> object:
    found = messages.apply(tx, messages.parse(NAMES, messages.Message(topic, json.dumps(body).encode(), retain=False)))
    if found is not None:
        raise GatewayError(found.refusal.code)
    return found


def _acknowledge(tx: Tx, it: Subject) -> object:
    word = receipt(it.token, it.command_id, "executed", 1)
    topic = NAMES.ack(it.id, CommandType.REBOOT)
    return _say(tx, topic, command_id=it.command_id, status="executed", receipt=word)


def _refresh(tx: Tx, it: Subject) -> object:
    return devices.refresh(tx, it.project_id, it.id, it.token_id)


def _cancel(tx: Tx, it: Subject) -> object:
    return commands.cancel(tx, devices.require(tx, it.project_id, it.id), it.command_id, "key_1", taken_in=True)


def _delete(tx: Tx, it: Subject) -> object:
    return devices.delete(tx, it.project_id, it.id, "key_1")


def _restore(tx: Tx, it: Subject) -> object:
    return devices.restore(tx, it.project_id, it.id, "key_1")


def _heartbeat(tx: Tx, it: Subject) -> object:
    return _say(tx, NAMES.heartbeat(it.id), battery_percent=50)


def _batch(tx: Tx, it: Subject) -> object:
    """A plain heartbeat that is stored beside those of other gateways; what is left of a batch is stored alone."""
    said = messages.Message(NAMES.heartbeat(it.id), b'{"battery_percent": 40}')
    if not plain_heartbeats.store_plain(Batch(tx), [said], NAMES).places:
        raise GatewayError("left")
    return said


VERBS: dict[str, Verb] = {
    verb.__name__.lstrip("_"): verb
    for verb in (
        *(_bind, _unbind, _reset, _supersede, _acknowledge, _refresh, _cancel, _delete, _restore, _heartbeat, _batch),
    )
}


@dataclass
class Two:
    """Two gateways on one registry, and a session that looks at the server."""

    one: Store
    other: Store
    project_id: str
    looking: PostgresConnection

    async def subject(self, serial: str) -> Subject:
        """A new device."""
        return await self.one.write(lambda tx: self._made(tx, serial))

    def _made(self, tx: Tx, serial: str) -> Subject:
        device, _ = devices.register(tx, self.project_id, RegisterDevice(serial_number=serial), "key_1")
        secret = devices.bind(tx, self.project_id, device.id, "eu_1", "key_1").device_token
        token = token_sql.by_secret(tx, secret)
        assert token is not None
        bound = devices.require(tx, self.project_id, device.id)
        command = commands.create(tx, bound, CreateCommand(type=CommandType.REBOOT), "key_1")
        return Subject(self.project_id, device.id, device.pk, secret, token.id, command.id)

    async def serial(self, first: Verb, second: Verb, subject: Subject) -> list[str]:
        """One after the other; how each ended."""
        return [await _ended(self.one, first, subject), await _ended(self.other, second, subject)]

    async def at_once(self, first: Verb, second: Verb, subject: Subject) -> list[str]:
        """The second is at the database while the first is in its transaction; how each ended."""
        inside, go_on = threading.Event(), threading.Event()

        def held(tx: Tx, it: Subject) -> object:
            try:
                return first(tx, it)
            finally:
                inside.set()
                go_on.wait()

        leads = asyncio.create_task(_ended(self.one, held, subject, shared=first is _batch))
        try:
            await eventually(inside.is_set, "the first is in its transaction")
            follows = asyncio.create_task(_ended(self.other, second, subject))
            alone = (
                first is not _batch or second is not _batch
            )  # two batches meet on the device, all others on the registry
            await eventually(lambda: follows.done() or self._is_waiting(alone=alone), "the second is at the database")
            assert not follows.done(), "the second has not waited for the first"
        finally:
            go_on.set()
        return [await leads, await follows]

    def _is_waiting(self, *, alone: bool) -> bool:
        return bool(self.looking.execute(WAITING, (int(alone),)).fetchone()[0] == 1)

    async def state(self, subject: Subject) -> dict[str, Any]:
        """What is there of a device, without ids, secrets and times."""
        return await self.one.read(lambda view: _state(view, subject.pk))


STATE = {
    "tokens": "SELECT generation, state FROM tokens WHERE device_pk = ? ORDER BY id",
    "commands": "SELECT type, status, seq FROM commands WHERE device_pk = ? ORDER BY created_at, id",
    "events": "SELECT type FROM events WHERE device_pk = ? ORDER BY seq",
    "heartbeats": "SELECT battery_percent, previous IS NULL FROM heartbeats WHERE device_pk = ? ORDER BY id",
    "health": "SELECT battery_percent, connection FROM health WHERE device_pk = ?",
    "outbox": "SELECT kind, detail FROM outbox WHERE device_pk = ? ORDER BY kind, detail",
}


def _state(view: View, pk: int) -> dict[str, Any]:
    device = device_sql.by_pk(view, pk)
    found = {name: [tuple(row) for row in view.all(sql, pk)] for name, sql in STATE.items()}
    return {"device": (device.end_user_id, device.binding_generation, device.deleted_at is None), **found}


async def _ended(store: Store, verb: Verb, subject: Subject, *, shared: bool = False) -> str:
    try:
        if shared or verb is _batch:
            await store.write_batch(lambda batch: verb(batch.tx, subject), shared=True)
        else:
            await store.write(lambda tx: verb(tx, subject))
    except GatewayError as error:
        return f"{error.code} {error.message}" if type(error) is GatewayError else error.code
    return "done"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """Two gateways."""
    where = database(tmp_path)
    async with Store(where, Context()) as one, Store(where, Context()) as other:
        project_id = await one.write(lambda tx: key_sql.create_project(tx, "ward"))
        with closing(PostgresConnection(where)) as looking:
            yield Two(one, other, project_id, looking)


@pytest.mark.parametrize("first", VERBS)
async def test_each_pair_has_the_result_of_a_serial_order(two: Two, first: str) -> None:
    """Each verb, held in its transaction, against each verb; the order of the commits is that of the transactions."""
    for number, second in enumerate(VERBS):
        alike, raced = await two.subject(f"S{number}"), await two.subject(f"R{number}")
        pair = VERBS[first], VERBS[second]
        assert await two.at_once(*pair, raced) == await two.serial(*pair, alike), (first, second)
        assert await two.state(raced) == await two.state(alike), (first, second)


def _join(tx: Tx, _: Subject) -> object:
    return broker_sql.join(tx, "brk_b")


@pytest.mark.parametrize("joins_first", [True, False])
async def test_no_change_falls_between_the_brokers_and_one_that_joins(two: Two, *, joins_first: bool) -> None:
    """The change is marked for the broker that joins, or that broker's first comparison finds it."""
    assert await two.one.write(lambda tx: broker_sql.join(tx, "brk_a")) == broker_sql.FIRST
    subject = await two.subject("S1")
    await two.one.write(lambda tx: tx.run("DELETE FROM outbox"))
    first, second = (_join, _reset) if joins_first else (_reset, _join)
    assert await two.at_once(first, second, subject) == ["done", "done"]
    joined = broker_sql.FIRST + 1
    assert await two.one.read(lambda view: _has_reset(view, subject, joined)) == joins_first
    await two.other.write(lambda tx: compare(tx, NAMES, {}, trustworthy=True, broker=joined))
    for broker in (broker_sql.FIRST, joined):
        assert await two.one.read(lambda view, broker=broker: _has_reset(view, subject, broker))  # type: ignore[misc]


def _has_reset(view: View, subject: Subject, broker: int) -> bool:
    return outbox_sql.has(view, outbox_sql.COMMAND, subject.pk, CommandType.FACTORY_RESET, brokers=[broker])


async def test_all_verbs_at_once_keep_the_invariants(two: Two) -> None:
    """From both gateways, unordered: one open command of a type, one good token, numbers of commands in order."""
    subject = await two.subject("S1")
    await asyncio.gather(
        *(_ended(store, verb, subject) for store, verb in itertools.product((two.one, two.other), VERBS.values()))
    )
    found = await two.state(subject)
    open_types = [kind for kind, status, _ in found["commands"] if status in ("pending", "delivered")]
    assert len(open_types) == len(set(open_types))
    numbers = [(kind, seq) for kind, _, seq in found["commands"]]
    assert len(numbers) == len(set(numbers))
    newest = found["device"][1]
    assert {generation for generation, state in found["tokens"] if state == "active"} <= {newest}


async def test_a_missing_lock_is_found(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock of the registry the second does not wait for the first, and the test says so."""
    monkeypatch.setattr(postgres_connection, "BEGIN", "BEGIN")
    with pytest.raises(AssertionError, match="has not waited"):
        await two.at_once(_reset, _heartbeat, await two.subject("S1"))
    with pytest.raises(AssertionError, match="has not waited"):
        await two.at_once(_reset, _join, await two.subject("S2"))
    with pytest.raises(AssertionError, match="has not waited"):
        await two.at_once(_batch, _refresh, await two.subject("S3"))


async def test_who_is_paused_in_a_transaction_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction that stands still: it changes nothing, and the others go on."""
    assert str(IDLE_MS) in BEGIN
    monkeypatch.setattr(postgres_connection, "BEGIN", BEGIN.replace(str(IDLE_MS), "50"))
    where = database(tmp_path)
    async with Store(where, Context()) as one, Store(where, Context()) as other:
        inside, go_on = threading.Event(), threading.Event()

        def paused(tx: Tx) -> None:
            key_sql.set_meta(tx, "test", "of the paused one")
            inside.set()
            go_on.wait()

        stands_still = asyncio.create_task(one.write(paused))
        try:
            await eventually(inside.is_set, "it is in its transaction")
            await other.write(lambda tx: key_sql.set_meta(tx, "test", "of the other"))
        finally:
            go_on.set()
        with pytest.raises(GatewayError):
            await stands_still
        assert await one.read(lambda view: key_sql.meta(view, "test")) == "of the other"
