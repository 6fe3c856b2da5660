"""An integrator at the broker: what it hears of events, and what it sees of states."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from gateway.outbound.states import StateLeaf
from gateway.store import View, devices
from gateway.topics import Topics
from simulation.broker import Broker

Broken = tuple[int, str, str]


class Integrator:
    """Hears the events that the broker takes, and reads the states that lie there (contract, section 3)."""

    def __init__(self, broker: Broker, disk: sqlite3.Connection) -> None:
        self._broker, self._disk = broker, disk
        self._told: dict[str, None] = {}
        self._leaf = StateLeaf(Topics())

    def hears(self, topic: str, payload: bytes) -> None:
        """The broker has taken a message."""
        if "/events/" in topic:
            self._told[json.loads(payload)["id"]] = None

    def misses(self) -> Iterator[Broken]:
        """Events that were never told though earlier ones were; states that are not the registry's."""
        rows = self._disk.execute("SELECT id, type FROM events WHERE device_pk IS NOT NULL ORDER BY seq").fetchall()
        first = next((place for place, row in enumerate(rows) if row["id"] in self._told), len(rows))
        for row in rows[first:]:
            if row["id"] not in self._told:
                yield 6, "every event is told", f"{row['id']} ({row['type']}) never reached the broker"
        yield from self._wrong_states()

    def _wrong_states(self) -> Iterator[Broken]:
        for row in self._disk.execute("SELECT pk FROM devices").fetchall():
            device = devices.by_pk(View(self._disk), row["pk"])
            wanted = b"" if device["deleted_at"] is not None else self._leaf.payload(device)
            held = self._broker.retained.get(self._leaf.topic(device["id"], device["project_id"]), b"")
            if self._leaf.compared(held) != self._leaf.compared(wanted):
                yield 3, "the states at the broker are the registry's", f"{device['id']}: {held[:200].decode()}"
