"""What writes cost on PostgreSQL: each statement whose result is needed is a round trip, so there are few."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.core.topics import Topics
from gateway.domain import devices, message_batches
from gateway.domain.messages import Message
from gateway.store import Batch, Tx, heartbeat_age_sql
from gateway.store.engine import Cursor
from gateway.store.heartbeat_age_sql import Due
from tests.domain.support import World

DEVICES = 12
SECOND = b'{"battery_percent": 5, "firmware_version": "2.0"}'


@pytest.mark.parametrize("body", [b"{}", SECOND], ids=["plain", "with events"])
def test_a_batch_takes_few_statements_whatever_it_holds(tmp_path: Path, body: bytes) -> None:
    """The number does not grow with the devices, whose first heartbeats cause events each."""
    counts = {}
    for size in (2, DEVICES):
        with World(tmp_path / str(size)) as world:
            topics = [world.names.heartbeat(world.bound(f"SN-{number}")[0]) for number in range(size)]
            incoming = [Message(topic, body) for topic in topics]
            counts[size] = world.run(partial(_statements, incoming=incoming, names=world.names))
    assert counts[2] == counts[DEVICES] < DEVICES


def test_a_look_for_old_heartbeats_takes_three_statements(tmp_path: Path) -> None:
    """A gateway that takes over looks at once, under the registry's lock: hundreds held it until a lease was lost."""
    with World(tmp_path) as world:
        pk = world.device(world.bound()[0]).pk
        world.run(partial(_history, pk=pk, ahead=700, rows=2_000))
        more = 3 if world.view.dialect.partitioned else 0  # for all partitions together
        count, found = world.run(partial(_looked, before=5_000))
        assert (count, found and found.values[0]) == (3 + more, 701)
        assert world.run(partial(_looked, before=0)) == (2 + more, None)


def test_a_reset_asks_one_question(tmp_path: Path) -> None:
    """All else is sent with the commit. Who asked is known from the request."""
    with World(tmp_path) as world:
        device_id, _ = world.bound()
        world.reset(world.bound("SN-2")[0])  # the signing key is known from now on
        (question,) = world.run(partial(_questions_of_a_reset, project_id=world.project_id, device_id=device_id))
        assert "FROM devices d LEFT JOIN health" in question


def _questions_of_a_reset(tx: Tx, project_id: str, device_id: str) -> list[str]:
    tx.new_id("evt")
    tx.actor_names["key_1"] = "back end"
    with _counting(tx) as executed:
        devices.reset(tx, project_id, device_id, "key_1")
    return executed


def _history(tx: Tx, pk: int, ahead: int, rows: int) -> None:
    """Add heartbeats, received at the instants 1, 2, 3 and so on. A wrong clock dated the first ones ahead."""
    tx.run_many(
        "INSERT INTO heartbeats (id, device_pk, received_at) VALUES (?, ?, ?)",
        [(number, pk, number + (10_000 if number <= ahead else 0)) for number in range(1, rows + 1)],
    )


def _looked(tx: Tx, before: int) -> tuple[int, Due | None]:
    with _counting(tx) as executed:
        found = heartbeat_age_sql.due(tx, before, 10)
    return len(executed), found


def _statements(tx: Tx, *, incoming: Sequence[Message], names: Topics) -> int:
    tx.new_id("evt")
    with _counting(tx) as executed, mock.patch.dict(vars(tx.dialect), together=100):
        count, _ = message_batches.process_batch(Batch(tx), incoming, names)
    assert count == len(incoming)
    return len(executed)


@contextmanager
def _counting(tx: Tx) -> Iterator[list[str]]:
    """Note the statements of the block."""
    executed: list[str] = []

    class Counting:
        """The connection, which notes what it executes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
            executed.append(sql)
            return real.execute(sql, values)

        def run_rows(self, statement: Any, rows: Sequence[Any]) -> int:
            executed.extend([statement.of_all] if rows else [])
            return real.run_rows(statement, rows)

    real = tx.connection
    with mock.patch.object(tx, "connection", Counting()):
        yield executed
