"""Plain heartbeats: stored beside those of other gateways, where the engine lets several write at once.

Nearly all that devices send are heartbeats that say nothing of commands. What such a batch reads and writes belongs to
its devices, and it locks their rows first. So batches of several gateways run at once, and wait for each other where
they have a device in common. All other writes run alone: while this one runs, no binding, token, command or setting
changes.

What devices share is events with their numbers, and kept counts. A batch that changes any locks the row of the numbers
before, and holds it to its end. So locks are taken in one order (devices, then that row), and numbers are in the order
of the commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core import topics
from gateway.domain.heartbeats import HeartbeatBatch
from gateway.domain.message_batches import LEAST, Incoming, devices_of_plain, parsed_of
from gateway.domain.messages import Parsed
from gateway.models.heartbeats import Heartbeat
from gateway.store import Batch, device_sql, health_sql
from gateway.store.device_cache import CachedDevice
from gateway.store.heartbeat_sql import Beat


class Stored(NamedTuple):
    """How many of the first messages were considered, and the places of those that are stored."""

    considered: int
    places: list[int]


def store_plain(batch: Batch, incoming: Sequence[Incoming], names: topics.Topics) -> Stored:
    """Store the plain heartbeats among these, in a shared transaction, until an urgent write waits.

    A device that sends anything else in the batch is left out. So the order of its messages is kept, when the caller
    stores what is left before it goes on.
    """
    tx, devices = batch.tx, batch.devices
    devices.open(tx.connection)
    parsed = _parse(batch, incoming, names)
    wanted = devices_of_plain([each for each in parsed if each is not None])
    if not wanted:
        return Stored(len(parsed), [])
    device_sql.lock(tx, wanted)
    known = health_sql.device_states(batch, wanted)
    beats = HeartbeatBatch(tx, at_broker=True, yield_to_urgent=batch.yield_to_urgent, shared=True)
    count, places = 0, list[int]()
    while count < len(parsed) and not (count >= LEAST and batch.should_stop()):
        batch.yield_to_urgent()
        part = parsed[count : count + tx.dialect.together]
        taken = [(place, beat) for place, each in enumerate(part, count) if (beat := _beat(each, known, wanted))]
        beats.take([beat for _, beat in taken])
        places += [place for place, _ in taken]
        count += len(part)
    beats.settle()
    devices.close(tx.connection)
    return Stored(count, places)


def _parse(batch: Batch, incoming: Sequence[Incoming], names: topics.Topics) -> list[Parsed | None]:
    """Parse messages until an urgent write waits. No device is locked yet."""
    parsed = list[Parsed | None]()
    while len(parsed) < len(incoming) and not (len(parsed) >= LEAST and batch.should_stop()):
        batch.yield_to_urgent()
        part = incoming[len(parsed) : len(parsed) + batch.tx.dialect.together]
        parsed += [None if each is None else parsed_of(names, each) for each in part]
    return parsed


def _beat(parsed: Parsed | None, known: dict[str, CachedDevice], wanted: set[str]) -> Beat | None:
    """Return the heartbeat to store, or None for what is left."""
    if parsed is None or parsed.plain not in wanted or not isinstance(parsed.body, Heartbeat):
        return None
    device = known.get(parsed.plain)
    return None if device is None or device.token_state is None else Beat(device, parsed.body, parsed.body.radio)
