"""The server undoes a write because of another session. The gateway runs it again, and its effect is single.

Real conflicts: a deadlock, and a change that another gateway has committed since the write began to read.
"""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError
from gateway.store import Context, Tx, event_sql, outbox_sql, writer
from gateway.store.postgres import connection as postgres_connection
from gateway.store.postgres.begin import BEGIN
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.writer import CONFLICT_TRIES
from tests.cluster.conflicts import WORKER, Meeting, meeting, open_resets

CONFLICTS = "gateway_write_conflicts_total"
NAMES_AFTERWARDS = ["name 0", "name 1"]


@pytest.fixture
async def met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Meeting]:
    """A gateway with two devices."""
    async with meeting(tmp_path, monkeypatch) as opened:
        yield opened


async def _each_is_reset_once(met: Meeting) -> None:
    """Rows, metrics, wake-ups and salts are those of one run."""
    told = met.told
    assert await met.rows("SELECT type, status, seq FROM commands") == [("factory_reset", "pending", 1)] * 2
    assert await met.rows("SELECT binding_generation, end_user_id FROM devices") == [(2, None)] * 2
    assert await met.rows("SELECT kind, detail, count(*) FROM outbox WHERE kind = 'command' GROUP BY 1, 2") == [
        ("command", "factory_reset", 2)
    ]
    events = ["device.unbound", "reset.requested"]
    assert await met.rows("SELECT type FROM events WHERE seq > 4 ORDER BY seq") == [(each,) for each in events * 2]
    assert [told.count("gateway_events_total", type=each) for each in events] == [2, 2]
    assert await met.rows("SELECT pending_resets, bound, total FROM device_counts") == [(2, 0, 2)]
    assert ([sorted(kinds) for kinds in told.outbox], told.events) == ([["command"]], 1)
    salts = await met.rows("SELECT salt FROM end_user_salts")
    assert len(salts) == 1
    pseudonym = base64.urlsafe_b64encode(hmac.new(salts[0][0], b"eu_1", hashlib.sha256).digest()).rstrip(b"=").decode()
    assert await met.rows("SELECT end_user FROM resets") == [(pseudonym,)] * 2


async def _in_a_deadlock(met: Meeting) -> None:
    """Two requests of one commit. What a worker waits for is of the second run. What the session wrote stays."""
    asked = met.store.read_after_commit(open_resets, WORKER)
    await met.in_a_deadlock(met.reset_each)
    assert sorted(await met.rows("SELECT name FROM devices")) == [(each,) for each in NAMES_AFTERWARDS]
    assert met.told.count(CONFLICTS, kind="deadlock") == 1
    assert asked.result() == 2
    await _each_is_reset_once(met)


async def test_a_deadlock_is_no_error_and_doubles_nothing(met: Meeting) -> None:
    """See :func:`_in_a_deadlock`."""
    await _in_a_deadlock(met)


async def test_a_serialization_failure_is_no_error_and_doubles_nothing(
    met: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writes see one state from their begin, the server refuses to change a row that was changed since.

    What the first run read ahead is not taken for the second one: it has the new names.
    """
    monkeypatch.setattr(postgres_connection, "BEGIN", BEGIN.replace("READ COMMITTED", "REPEATABLE READ"))
    assert await met.with_an_old_view(met.reset_both) == NAMES_AFTERWARDS
    assert met.told.count(CONFLICTS, kind="serialization") == 1
    await _each_is_reset_once(met)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_the_servers_isolation_level_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """A write that waited for another gateway sees what that one has committed, whatever the server's default is."""
    async with meeting(tmp_path, monkeypatch, f"default_transaction_isolation = '{level}'") as met:
        assert await met.with_an_old_view(met.reset_both) == NAMES_AFTERWARDS
        assert met.told.count(CONFLICTS, kind="serialization") == 0
        await _each_is_reset_once(met)


async def test_heartbeats_in_a_deadlock_are_stored_once(met: Meeting) -> None:
    """In a batch: history, state, counts and events are those of one run. Devices are read again."""
    assert await met.in_a_deadlock(met.beat_both) == 2
    assert met.told.count(CONFLICTS, kind="deadlock") == 1
    assert await met.rows("SELECT battery_percent, previous FROM heartbeats") == [(50, None)] * 2
    assert await met.rows("SELECT connection, battery_percent FROM health") == [("online", 50)] * 2
    assert await met.rows("SELECT online, seen FROM device_counts") == [(2, 2)]
    assert await met.rows("SELECT type FROM events WHERE seq > 4") == [("device.online",)] * 2
    assert met.told.count("gateway_heartbeats_total", outcome="stored") == 2
    assert met.told.events == 1


async def test_a_conflict_without_end_changes_nothing(met: Meeting) -> None:
    """After some tries the caller gets the error. Nothing is reported to workers and metrics."""
    await met.store.write(
        lambda tx: tx.run(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM nextval('tries'); RAISE SQLSTATE '40001'; END $$"""
        )
    )
    await met.store.write(lambda tx: tx.run("CREATE SEQUENCE tries"))
    await met.store.write(
        lambda tx: tx.run("CREATE TRIGGER refuse BEFORE INSERT ON commands EXECUTE FUNCTION refuse()")
    )
    met.hold_nothing()
    before = await met.rows("SELECT * FROM devices")
    with pytest.raises(StoreError):
        await met.reset_both()
    assert await met.rows("SELECT last_value FROM tries") == [(CONFLICT_TRIES,)]
    assert await met.rows("SELECT * FROM devices") == before
    assert (met.told.outbox, met.told.events) == ([], 0)
    assert met.told.count("gateway_events_total", type="reset.requested") == 0


# --- planted faults: a side effect outside of the transaction, which the second run doubles ---------------------------


def _counts_each_try(patch: pytest.MonkeyPatch, _: Meeting) -> None:
    patch.setattr(writer, "Tx", _keeping("measures", []))


def _keeping(what: str, kept: object) -> type[Tx]:
    """Transactions that go on with what the one before has gathered."""

    class Keeping(Tx):
        def __init__(self, *of: Any) -> None:
            super().__init__(*of)
            setattr(self, what, kept)

    return Keeping


def _wakes_before_the_commit(patch: pytest.MonkeyPatch, met: Meeting) -> None:
    real = outbox_sql.mark_command

    def mark(*of: Any, **more: Any) -> None:
        real(*of, **more)
        met.told.notify_outbox(frozenset({outbox_sql.COMMAND}))

    patch.setattr(outbox_sql, "mark_command", mark)


def _commits_events_apart(patch: pytest.MonkeyPatch, met: Meeting) -> None:
    real = event_sql.insert

    def insert(tx: Tx, events: Any) -> None:
        with closing(PostgresConnection(met.where)) as apart:
            real(Tx(apart, Context()), events)
            apart.flush()
        tx.wrote_events = True

    patch.setattr(event_sql, "insert", insert)


def _keeps_the_salt_of_a_try(patch: pytest.MonkeyPatch, _: Meeting) -> None:
    patch.setattr(writer, "Tx", _keeping("new_salts", {}))


FAULTS: tuple[Callable[[pytest.MonkeyPatch, Meeting], None], ...] = (
    *(_counts_each_try, _wakes_before_the_commit, _commits_events_apart, _keeps_the_salt_of_a_try),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.lstrip("_"))
async def test_a_planted_side_effect_is_found(
    fault: Callable[[pytest.MonkeyPatch, Meeting], None], met: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of a deadlock fails on each of them."""
    fault(monkeypatch, met)
    with pytest.raises(AssertionError):
        await _in_a_deadlock(met)
