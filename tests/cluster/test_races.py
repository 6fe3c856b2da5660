"""Two gateways change one device at the same time, on PostgreSQL: the result is that of some serial order.

The result of each pair of verbs is compared with the same two verbs one after the other.
"""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.command_types import CommandType
from gateway.domain import commands, devices
from gateway.errors import GatewayError
from gateway.models.commands import CreateCommand
from gateway.store import Context, Store, Tx, View, broker_sql, key_sql, outbox_sql
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.begin import BEGIN, IDLE_MS
from tests.cluster import races
from tests.cluster.races import NAMES, Subject, Two, Verb, bound, ended, two_gateways
from tests.support.comparison import compare
from tests.support.postgres import database
from tests.support.wait import eventually

VERBS: dict[str, Verb] = {
    verb.__name__: verb
    for verb in (
        *(races.bind, races.unbind, races.reset, races.supersede, races.acknowledge, races.refresh, races.cancel),
        *(races.delete, races.restore, races.heartbeat, races.batch),
    )
}


def _with_reboot(tx: Tx, project_id: str, serial: str) -> Subject:
    """A bound device with an open reboot."""
    subject = bound(tx, project_id, serial)
    device = devices.require(tx, project_id, subject.id)
    command = commands.create(tx, device, CreateCommand(type=CommandType.REBOOT), "key_1")
    return replace(subject, command_id=command.id)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """Two gateways."""
    async with two_gateways(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("first", VERBS)
async def test_each_pair_has_the_result_of_a_serial_order(two: Two, first: str) -> None:
    """Each verb, held in its transaction, against each verb; the order of the commits is that of the transactions."""
    for number, second in enumerate(VERBS):
        alike, raced = await two.alike(_with_reboot, number)
        pair = VERBS[first], VERBS[second]
        assert await two.at_once(*pair, raced) == await two.serial(*pair, alike), (first, second)
        has, should = await two.states(raced, alike)
        assert has == should, (first, second)


def _join(tx: Tx, _: Subject) -> object:
    return broker_sql.join(tx, "brk_b")


@pytest.mark.parametrize("joins_first", [True, False])
async def test_no_change_falls_between_the_brokers_and_one_that_joins(two: Two, *, joins_first: bool) -> None:
    """The change is marked for the broker that joins, or that broker's first comparison finds it."""
    assert await two.one.write(lambda tx: broker_sql.join(tx, "brk_a")) == broker_sql.FIRST
    subject = await two.subject(_with_reboot, "S1")
    await two.one.write(lambda tx: tx.run("DELETE FROM outbox"))
    first, second = (_join, races.reset) if joins_first else (races.reset, _join)
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
    subject = await two.subject(_with_reboot, "S1")
    await asyncio.gather(
        *(ended(store, verb, subject) for store, verb in itertools.product((two.one, two.other), VERBS.values()))
    )
    (found,) = await two.states(subject)
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
        await two.at_once(races.reset, races.heartbeat, await two.subject(_with_reboot, "S1"))
    with pytest.raises(AssertionError, match="has not waited"):
        await two.at_once(races.reset, _join, await two.subject(_with_reboot, "S2"))
    with pytest.raises(AssertionError, match="has not waited"):
        await two.at_once(races.batch, races.refresh, await two.subject(_with_reboot, "S3"))


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
