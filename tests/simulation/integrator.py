"""An integrator at the broker: what it hears of events, and what it sees of states."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from gateway.core.topics import Topics
from gateway.outbound.states import ProjectStateLeaf, StateTopic
from gateway.store import View, account_sql, device_sql
from tests.simulation.broker import Broker

Broken = tuple[int, str, str]


class Integrator:
    """Hears the events that the broker takes, and reads the states that lie there (contract, section 3)."""

    def __init__(self, broker: Broker, disk: sqlite3.Connection) -> None:
        self._broker, self._disk = broker, disk
        self._told: dict[str, None] = {}
        self._told_project: dict[str, None] = {}
        self._leaf, self._project_leaf = StateTopic(Topics()), ProjectStateLeaf(Topics())

    def hears(self, topic: str, payload: bytes) -> None:
        """The broker has taken a message."""
        if "/events/" in topic:
            event = json.loads(payload)
            of_project = topic.startswith("projects/")
            (self._told_project if of_project else self._told)[event["id"]] = None
            assert not of_project or topic.startswith(f"projects/{event['projectid']}/devices/{event['subject']}/")

    def misses(self) -> Iterator[Broken]:
        """Events that were never told though earlier ones were; states that are not the registry's."""
        rows = self._disk.execute(
            """SELECT e.id, e.type, d.project_id FROM events e JOIN devices d ON d.pk = e.device_pk ORDER BY e.seq"""
        ).fetchall()
        yield from self._untold(rows, self._told)
        read = account_sql.projects(View(self._disk))
        yield from self._untold([row for row in rows if row["project_id"] in read], self._told_project)
        for row in rows:
            if row["id"] in self._told_project and row["project_id"] not in read:
                yield 6, "integrators of a project hear of it alone", f"{row['id']} was told to another project"
        yield from self._wrong_states(self._leaf)
        yield from self._wrong_states(self._project_leaf)

    def _untold(self, rows: list[sqlite3.Row], told: dict[str, None]) -> Iterator[Broken]:
        first = next((place for place, row in enumerate(rows) if row["id"] in told), len(rows))
        for row in rows[first:]:
            if row["id"] not in told:
                yield 6, "every event is told", f"{row['id']} ({row['type']}) never reached the broker"

    def _wrong_states(self, leaf: StateTopic) -> Iterator[Broken]:
        shown = leaf.projects(View(self._disk))
        for row in self._disk.execute("SELECT pk FROM devices").fetchall():
            device = device_sql.by_pk(View(self._disk), row["pk"])
            is_shown = device.deleted_at is None and (shown is None or device.project_id in shown)
            wanted = leaf.payload(device) if is_shown else b""
            held = self._broker.retained.get(leaf.topic(device.id, device.project_id), b"")
            if leaf.compared(held) != leaf.compared(wanted):
                yield 3, "the states at the broker are the registry's", f"{device.id}: {held[:200].decode()}"
