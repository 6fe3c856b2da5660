"""An integrator at the broker: the events that it receives, and the states that it reads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Final

from gateway.core.topics import Topics
from gateway.outbound.states import ProjectStateLeaf, StateTopic
from gateway.store import View, account_sql, device_sql
from gateway.store.engine import DatabaseConnection
from tests.simulation.broker import Broker

Finding = tuple[int, str, str]

_DEVICES: Final = """SELECT d.pk, b.id AS home FROM devices d LEFT JOIN homes h ON h.device_pk = d.pk
    LEFT JOIN brokers b ON b.pk = h.broker_pk"""


class Integrator:
    """Receives the events that the broker routes, and reads its retained states (contract, section 3)."""

    def __init__(self, broker: Broker, disk: DatabaseConnection, broker_id: str) -> None:
        self._broker, self._disk, self._broker_id = broker, disk, broker_id
        self._received: dict[str, None] = {}
        self._received_by_project: dict[str, None] = {}
        self._leaf, self._project_leaf = StateTopic(Topics()), ProjectStateLeaf(Topics())

    def receive(self, topic: str, payload: bytes) -> None:
        """Record a message that the broker routed."""
        if "/events/" in topic:
            event = json.loads(payload)
            of_project = topic.startswith("projects/")
            (self._received_by_project if of_project else self._received)[event["id"]] = None
            assert not of_project or topic.startswith(f"projects/{event['projectid']}/devices/{event['subject']}/")

    def forget(self) -> None:
        """Begin again: the broker is another one from now on."""
        self._received.clear()
        self._received_by_project.clear()

    def find_violations(self) -> Iterator[Finding]:
        """Return events that were left out between published ones, and states that differ from the registry."""
        rows = self._disk.execute(
            """SELECT e.id, e.type, d.project_id FROM events e JOIN devices d ON d.pk = e.device_pk ORDER BY e.seq"""
        ).fetchall()
        yield from self._missing_events(rows, self._received)
        places = {row["id"]: place for place, row in enumerate(rows)}
        order = [places[each] for each in self._received if each in places]
        if order != sorted(order):
            yield 6, "events are published in order", "a broker received a later event first"
        read = account_sql.projects(View(self._disk))
        yield from self._missing_events([row for row in rows if row["project_id"] in read], self._received_by_project)
        for row in rows:
            if row["id"] in self._received_by_project and row["project_id"] not in read:
                yield (
                    6,
                    "project accounts receive the events of their project alone",
                    f"{row['id']} was told to another project",
                )
        yield from self._wrong_states(self._leaf)
        yield from self._wrong_states(self._project_leaf)

    def _missing_events(self, rows: list[sqlite3.Row], received: dict[str, None]) -> Iterator[Finding]:
        first = next((place for place, row in enumerate(rows) if row["id"] in received), len(rows))
        for row in rows[first:]:
            if row["id"] not in received:
                yield 6, "every event is published", f"{row['id']} ({row['type']}) never reached the broker"

    def _wrong_states(self, leaf: StateTopic) -> Iterator[Finding]:
        mirrored_projects = leaf.projects(View(self._disk))
        for row in self._disk.execute(_DEVICES).fetchall():
            device = device_sql.by_pk(View(self._disk), row["pk"])
            is_served = device.deleted_at is None and row["home"] in (None, self._broker_id)
            is_shown = is_served and (mirrored_projects is None or device.project_id in mirrored_projects)
            expected = leaf.payload(device) if is_shown else b""
            held = self._broker.retained.get(leaf.topic(device.id, device.project_id), b"")
            if leaf.compared(held) != leaf.compared(expected):
                yield 3, "the states at the broker are the registry's", f"{device.id}: {held[:200].decode()}"
