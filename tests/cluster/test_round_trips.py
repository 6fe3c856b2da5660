"""What resets cost on PostgreSQL: each message is a round trip, and a wait for the processor on both sides."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.models.resets import ResetDevice
from gateway.store import Context, Store, Tx, due_topic_sql, key_sql, reset_sql
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
        ahead=[lambda view: reset_sql.target(view, project, device_id)],
    )


async def test_a_reset_is_two_messages_and_its_publication_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One begins and reads all that it depends on; the other writes and commits. The third reads what is due."""
    project, ids = await store.write(_bound)
    for device_id in ids[:10]:  # until their statements are prepared
        await _reset(store, project, device_id)
        await store.read_small(partial(due_topic_sql.due, now=2**50, limit=100))
    messages = Messages(monkeypatch)
    await _reset(store, project, ids[10])
    assert [message[:5] for message in messages.sent] == ["BEGIN", "EXECU"]
    assert messages.sent[-1].endswith(";COMMIT")
    messages.forget()
    due = await store.read_small(partial(due_topic_sql.due, now=2**50, limit=100))
    assert sum(topic.command is not None for topic in due) == 11
    assert len(messages.sent) == 1


async def test_resets_at_once_are_a_message_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writes of one go with what the next one reads. Those that fail leave the others as they are."""
    project, ids = await store.write(_bound)
    for group in range(2):  # until the statements are prepared
        await asyncio.gather(*(_reset(store, project, each) for each in ids[group * GROUP : (group + 1) * GROUP]))
    messages, gate = Messages(monkeypatch), Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.reached()
    given = [*ids[2 * GROUP : 3 * GROUP - 2], "dev_nowhere", ids[-1]]
    asked = [asyncio.create_task(_reset(store, project, each)) for each in given]
    await asyncio.sleep(0)  # each has queued its write
    gate.open()
    await held
    messages.forget()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each).__name__ for each in outcomes] == ["NoneType"] * (GROUP - 2) + ["NotFoundError", "NoneType"]
    assert len(messages.sent) <= GROUP + 2
    open_now = await store.read(lambda view: view.value("SELECT count(*) FROM commands WHERE status = 'pending'"))
    assert open_now == len(ids) - 1


async def test_a_statement_that_fails_in_a_group_fails_its_write_alone(store: Store) -> None:
    """It was sent with those of others, so all are run again, one by one."""
    project, ids = await store.write(_bound)
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.reached()

    def faulty(tx: Tx) -> None:
        tx.run("UPDATE devices SET updated_at = ? WHERE id = ?", "never", ids[0])

    asked = [
        asyncio.create_task(task)
        for task in (_reset(store, project, ids[0]), store.write(faulty), _reset(store, project, ids[1]))
    ]
    await asyncio.sleep(0)
    gate.open()
    await held
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each).__name__ for each in outcomes] == ["NoneType", "PostgresError", "NoneType"]
    events = await store.read(lambda view: view.all("SELECT type FROM events WHERE type = 'reset.requested'"))
    assert len(events) == 2
