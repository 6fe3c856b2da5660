"""What a batch of heartbeats costs on PostgreSQL: each statement is a round trip, so there are few for many devices."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.core.topics import Topics
from gateway.domain import messages
from gateway.domain.messages import Message
from gateway.store import Batch, Tx
from gateway.store.engine import Cursor
from tests.domain.support import World

DEVICES = 12
SECOND = b'{"battery_percent": 5, "firmware_version": "2.0"}'


@pytest.mark.parametrize("body", [b"{}", SECOND], ids=["plain", "with events"])
def test_a_batch_takes_few_statements_whatever_it_holds(tmp_path: Path, body: bytes) -> None:
    """The number does not grow with the devices, whose first heartbeats cause events each."""
    counts = {}
    for devices in (2, DEVICES):
        with World(tmp_path / str(devices)) as world:
            topics = [world.names.heartbeat(world.bound(f"SN-{number}")[0]) for number in range(devices)]
            incoming = [Message(topic, body) for topic in topics]
            counts[devices] = world.run(partial(_statements, incoming=incoming, names=world.names))
    assert counts[2] == counts[DEVICES] < DEVICES


def _statements(tx: Tx, *, incoming: Sequence[Message], names: Topics) -> int:
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
    with mock.patch.object(tx, "connection", Counting()), mock.patch.dict(vars(tx.dialect), together=100):
        tx.new_id("evt")
        executed.clear()
        count, _ = messages.process_batch(Batch(tx), incoming, names)
    assert count == len(incoming)
    return len(executed)
