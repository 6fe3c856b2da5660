"""What resets cost on PostgreSQL: each message is a round trip, and a wait for the processor on both sides."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.models.resets import ResetDevice
from gateway.store import Ahead, Context, Store, Tx, due_topic_sql, key_sql, outbox_sql, reset_sql
from gateway.store.writer import GROUP
from tests.store.support import Gate
from tests.support.messages import Messages
from tests.support.postgres import database

ACTOR = "gateway"
DEVICES = 3 * GROUP


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store on PostgreSQL."""
    async with Store(database(tmp_path), Context()) as opened:
        yield opened


def _bound(tx: Tx) -> tuple[str, list[str]]:
    project = key_sql.create_project(tx, "test")
    ids = []
    for number in range(DEVICES):
        device, _ = devices.register(tx, project, RegisterDevice(serial_number=f"SN-{number}"), ACTOR)
        devices.bind(tx, project, device.id, f"eu_{number}", ACTOR)
        ids.append(device.id)
    return project, ids


async def _reset(store: Store, project: str, device_id: str, asked: ResetDevice | None = None) -> None:
    await store.write(
        lambda tx: devices.reset(tx, project, device_id, ACTOR, asked or ResetDevice()),
        ahead=Ahead([lambda view: reset_sql.target(view, project, device_id)], device_id),
    )


async def test_a_reset_with_its_publication_is_two_messages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One begins and reads all that it depends on. The other writes, reads what is due for a publisher, and commits."""
    project, ids = await store.write(_bound)
    for device_id in ids[:10]:  # until their statements are prepared
        await _reset(store, project, device_id)
        await store.read_small(partial(due_topic_sql.due, now=2**50, limit=100))
    due = store.read_after_commit(partial(due_topic_sql.due, limit=100), [outbox_sql.COMMAND])
    messages = Messages(monkeypatch)
    await _reset(store, project, ids[10])
    assert [message[:5] for message in messages.sent] == ["BEGIN", "EXECU"]
    assert messages.sent[-1].endswith(";COMMIT")
    assert sum(topic.command is not None for topic in due.result()) == 11


async def test_resets_at_once_are_two_messages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that they read goes with the beginning, all that they write with the end. One that fails undoes no other."""
    project, ids = await store.write(_bound)
    for group in range(2):  # until the statements are prepared
        await asyncio.gather(*(_reset(store, project, each) for each in ids[group * GROUP : (group + 1) * GROUP]))
    given = [*ids[2 * GROUP : 3 * GROUP - 2], "dev_nowhere", ids[-1]]
    messages = Messages(monkeypatch)
    outcomes = await _at_once(store, *(partial(_reset, store, project, each) for each in given))
    assert [type(each).__name__ for each in outcomes] == ["NoneType"] * (GROUP - 2) + ["NotFoundError", "NoneType"]
    of_the_gate, of_the_group = messages.sent[:-2], messages.sent[-2:]
    assert [message[:5] for message in of_the_group] == ["BEGIN", "SAVEP"]
    assert of_the_gate[-1] == "COMMIT"
    open_now = await store.read(lambda view: view.value("SELECT count(*) FROM commands WHERE status = 'pending'"))
    assert open_now == len(ids) - 1


async def _at_once(store: Store, *writes: Callable[[], Coroutine[None, None, object]]) -> list[object]:
    """Run these in one transaction, in this order."""
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.reached()
    asked = [asyncio.create_task(write()) for write in writes]
    await asyncio.sleep(0)  # each has queued its write
    gate.open()
    await held
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_resets_of_one_device_at_once_are_one_reset(store: Store) -> None:
    """The second finds what the first has written, though both were read ahead."""
    project, ids = await store.write(_bound)
    once = partial(_reset, store, project, ids[0])
    assert await _at_once(store, once, partial(_reset, store, project, ids[1]), once) == [None] * 3
    assert await store.read(lambda view: view.value("SELECT count(*) FROM commands")) == 2


async def test_resets_at_once_of_one_person_share_the_pseudonym(store: Store) -> None:
    """The first makes the salt of it, after the second was read. One that fails leaves no salt behind."""

    def bound(tx: Tx) -> tuple[str, list[str]]:
        project, ids = _bound(tx)
        for device_id in ids[:3]:
            devices.unbind(tx, project, device_id, ACTOR)
            devices.bind(tx, project, device_id, "eu_same", ACTOR)
        return project, ids[:3]

    project, ids = await store.write(bound)

    async def fails(device_id: str) -> None:
        def write(tx: Tx) -> None:
            devices.reset(tx, project, device_id, ACTOR, ResetDevice())
            raise LookupError

        await store.write(write, ahead=Ahead([lambda view: reset_sql.target(view, project, device_id)], device_id))

    outcomes = await _at_once(store, partial(fails, ids[0]), *(partial(_reset, store, project, each) for each in ids))
    assert [type(each).__name__ for each in outcomes] == ["LookupError", *["NoneType"] * 3]
    pseudonyms = await store.read(lambda view: view.all("SELECT end_user FROM resets"))
    assert (len(pseudonyms), len({row[0] for row in pseudonyms})) == (3, 1)
    assert await store.read(lambda view: view.value("SELECT count(*) FROM end_user_salts")) == 1


async def test_a_statement_that_fails_in_a_group_fails_its_write_alone(store: Store) -> None:
    """It was sent with those of others, so all are run again, one by one."""
    project, ids = await store.write(_bound)

    def faulty(tx: Tx) -> None:
        tx.run("UPDATE devices SET updated_at = ? WHERE id = ?", "never", ids[0])

    first, last = (partial(_reset, store, project, each) for each in ids[:2])
    outcomes = await _at_once(store, first, partial(store.write, faulty), last)
    assert [type(each).__name__ for each in outcomes] == ["NoneType", "PostgresError", "NoneType"]
    events = await store.read(lambda view: view.all("SELECT type FROM events WHERE type = 'reset.requested'"))
    assert len(events) == 2
