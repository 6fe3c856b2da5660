"""Batches of messages: many are stored by the same statements, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from gateway.core import topics
from gateway.domain import heartbeats
from gateway.domain.commands import Refusal
from gateway.domain.messages import MAX_PAYLOAD_BYTES, Message, MessageResult, Parsed, apply, parse, read_heartbeat
from gateway.models.heartbeats import Heartbeat
from gateway.store import Batch, health_sql
from gateway.store.heartbeat_sql import Beat

LEAST: Final = 100
"""The most messages that an urgent write, such as a reset, waits for on SQLite: a millisecond or two."""
MOST_ALONE: Final = 20
"""The most messages that go one by one before a batch checks again whether an urgent write waits.

Each takes a few statements: over a network tens of milliseconds. The renewal of the broker's lease is such a write.
"""

Incoming = Message | Parsed | None
"""A message that waits for its commit: as it came, parsed already, or not to be stored."""


def process_batch(batch: Batch, incoming: Sequence[Incoming], names: topics.Topics) -> tuple[int, list[MessageResult]]:
    """Store messages, part after part, until an urgent write waits.

    Return how many of the first were stored, and the answers for the devices' ``errors`` topics. A part is parsed when
    its turn comes, here in the writer's thread: the event loop has clients to serve. After each part (on SQLite half a
    millisecond) the batch checks whether a client waits. Heartbeats that say nothing of commands are stored together,
    if their device sends nothing else in this part. So the order of one device's messages is kept; that between devices
    has no meaning.
    """
    tx, devices = batch.tx, batch.devices
    count, singly, answers = 0, 0, list[MessageResult]()
    beats = heartbeats.HeartbeatBatch(tx, at_broker=True, yield_to_urgent=batch.yield_to_urgent)
    devices.open(tx.connection)
    while count < len(incoming) and not ((count >= LEAST or singly >= MOST_ALONE) and batch.should_stop()):
        batch.yield_to_urgent()
        length, together, alone = _part(batch, incoming[count : count + tx.dialect.together], names)
        beats.take(together)
        if alone:
            beats.settle()
            answers += [answer for parsed in alone if (answer := apply(tx, parsed)) is not None]
            devices.forget()  # whatever these have changed
        count += length
        singly += len(alone)
    beats.settle()
    devices.close(tx.connection)
    return count, answers


def _part(batch: Batch, incoming: Sequence[Incoming], names: topics.Topics) -> tuple[int, list[Beat], list[Parsed]]:
    """Return how many of these are the next part, and which of them go together and which one by one."""
    first = _first_beats(batch, incoming, names)
    if len(first) == len(incoming):  # nearly always
        return len(incoming), first, []
    seen = [
        Parsed(each, names.parse(each.topic), beat.heartbeat, beat.device.id)
        for each, beat in zip(incoming, first, strict=False)
        if isinstance(each, Message)
    ]
    rest = (None if each is None else parsed_of(names, each) for each in incoming[len(first) :])
    parsed = [(place, each) for place, each in enumerate([*seen, *rest], 1) if each is not None]
    together, alone = _partition(batch, [each for _, each in parsed])
    if len(alone) <= MOST_ALONE:
        return len(incoming), together, alone
    length = next(place for place, each in parsed if each is alone[MOST_ALONE - 1])
    return length, *_partition(batch, [each for place, each in parsed if place <= length])


def _first_beats(batch: Batch, incoming: Sequence[Incoming], names: topics.Topics) -> list[Beat]:
    """Return the first of these, up to one that is no plain heartbeat of a cached device."""
    known, beats = batch.devices.senders, list[Beat]()
    for each in incoming:
        if not isinstance(each, Message) or each.retain or len(each.payload) > MAX_PAYLOAD_BYTES:
            break
        topic = names.parse(each.topic)
        device = known.get(topic.device_id) if isinstance(topic, topics.HeartbeatTopic) else None
        if device is None or device.token_state is None:
            break
        heartbeat = read_heartbeat(each.payload)
        if isinstance(heartbeat, Refusal) or heartbeat.last_command is not None:
            break
        beats.append(Beat(device, heartbeat, heartbeat.radio))
    return beats


def parsed_of(names: topics.Topics, incoming: Message | Parsed) -> Parsed:
    """Return the message, parsed."""
    return incoming if isinstance(incoming, Parsed) else parse(names, incoming)


def _partition(batch: Batch, messages: Sequence[Parsed]) -> tuple[list[Beat], list[Parsed]]:
    """Return what can be stored together, and what goes one by one; each in the order in which it came."""
    names = devices_of_plain(messages)
    known = health_sql.device_states(batch, names)
    together, alone = [], []
    for parsed in messages:
        _, _, body, name = parsed
        device = known.get(name) if name in names else None
        if device is None or device.token_state is None or not isinstance(body, Heartbeat):
            alone.append(parsed)
        else:
            together.append(Beat(device, body, body.radio))
    return together, alone


def devices_of_plain(messages: Collection[Parsed]) -> set[str]:
    """Return the ids of devices whose messages among these are all heartbeats that say nothing of commands."""
    names = {parsed.plain for parsed in messages}
    if "" in names:
        names -= {getattr(parsed.topic, "device_id", "") for parsed in messages if not parsed.plain} | {""}
    return names
