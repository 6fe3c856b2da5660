"""A batch of messages that go one by one makes way for an urgent write soon, such as the renewal of a lease."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.domain import message_batches, messages
from gateway.domain.message_batches import MOST_ALONE
from gateway.domain.messages import Message
from gateway.store import Batch, Tx
from tests.domain.support import World

SAID = 700
"""More than a part holds on either engine."""


@pytest.mark.parametrize("before", [0, 150])
def test_few_messages_go_one_by_one_while_an_urgent_write_waits(tmp_path: Path, before: int) -> None:
    """Behind so many plain heartbeats of another device, all the same; nothing is left out, and the order stays."""
    with World(tmp_path) as world:
        plain, other = world.bound("PLAIN")[0], world.bound("OTHER")[0]
        said = [_said(plain, "heartbeat", {"battery_percent": 50})] * before
        said += [_said(other, "status", {"status": ("online", "offline")[number % 2]}) for number in range(SAID)]
        sizes = []
        while said:
            count, answers = world.run(_process, said, world)
            assert answers == []
            sizes.append(count)
            assert sum(each.topic.endswith("/status") for each in said[:count]) <= before + MOST_ALONE
            said = said[count:]
        assert sum(sizes) == before + SAID
        assert max(sizes) <= before + MOST_ALONE
        assert len(sizes) >= SAID // MOST_ALONE - before


def _process(tx: Tx, said: list[Message], world: World) -> tuple[int, list[messages.MessageResult]]:
    return message_batches.process_batch(Batch(tx, should_stop=lambda: True), said, world.names)


def _said(device_id: str, leaf: str, body: dict[str, object]) -> Message:
    return Message(f"devices/{device_id}/{leaf}", json.dumps(body).encode())
