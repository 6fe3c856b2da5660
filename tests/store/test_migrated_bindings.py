"""What the step that makes ``bindings`` finds on both engines: bound devices, and events that are still there."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gateway.store import DATABASE_NAME
from gateway.store.engine import DatabaseConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import STEPS
from gateway.store.schema import apply, migrate
from gateway.store.sqlite.connection import connect
from tests.support.postgres import database

DEVICES = {1: None, 2: "eu_b", 3: "eu_c", 4: None}
EVENTS = [
    (11, 1, "device.registered", 10, {}),
    (12, 1, "device.bound", 20, {"end_user_id": "eu_a", "binding_generation": 1}),
    (13, 2, "device.bound", 30, {"end_user_id": "eu_a", "binding_generation": 1}),
    (14, 1, "device.online", 40, {}),
    (15, 1, "device.unbound", 50, {"end_user_id": "eu_a", "binding_generation": 2}),
    (16, 2, "device.unbound", 60, {"end_user_id": "eu_a", "binding_generation": 2}),
    (17, 2, "device.bound", 70, {"end_user_id": "eu_b", "binding_generation": 3}),
    (18, 4, "device.online", 80, {}),
    (19, 4, "device.unbound", 90, {"end_user_id": "eu_d", "binding_generation": 6}),
]
FOUND = [
    (1, 1, "eu_a", 20, 50, 12, 15),
    (2, 1, "eu_a", 30, 60, 13, 16),
    (2, 3, "eu_b", 70, None, 17, None),
    (3, 8, "eu_c", 5, None, 0, None),  # bound before the oldest event
    (4, 5, "eu_d", 80, 90, 18, 19),  # the event of the bind is gone
]


def _fill(connection: DatabaseConnection) -> None:
    connection.execute("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'ward', 1)")
    for pk, end_user in DEVICES.items():
        connection.execute(
            """INSERT INTO devices (pk, id, project_id, serial_number, model, end_user_id, bound_at, binding_generation,
                created_at, updated_at) VALUES (?, ?, 'proj_1', ?, 'm', ?, ?, 8, 1, 1)""",
            (pk, f"dev_{pk}", f"SN-{pk}", end_user, None if end_user is None else 5),
        )
    for seq, pk, kind, at, data in EVENTS:
        connection.execute(
            """INSERT INTO events (seq, id, project_id, device_pk, type, created_at, data)
                VALUES (?, ?, 'proj_1', ?, ?, ?, ?)""",
            (seq, f"evt_{seq}", pk, kind, at, json.dumps(data)),
        )


@contextmanager
def _migrated(engine: str, tmp_path: Path) -> Iterator[DatabaseConnection]:
    if engine == "sqlite":
        with closing(connect(tmp_path / DATABASE_NAME)) as connection:
            apply(connection, stop_before="m032_bindings")
            _fill(connection)
            migrate(connection)
            yield connection
        return
    with closing(open_registry(database(tmp_path))) as there:  # it has every table already
        _fill(there)
        for statement in STEPS["p032_bindings"]:
            if statement.startswith("INSERT INTO bindings"):
                there.execute(statement)
        yield there


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_known_bindings_are_found(tmp_path: Path, engine: str) -> None:
    """Each bind with its end; nothing is known of heartbeats by their numbers."""
    with _migrated(engine, tmp_path) as connection:
        rows = connection.execute(
            """SELECT device_pk, generation, end_user_id, bound_at, unbound_at, first_event, last_event FROM bindings
                WHERE after_heartbeat IS NULL AND last_heartbeat IS NULL AND project_id = 'proj_1'
                ORDER BY device_pk, generation"""
        ).fetchall()
        assert [tuple(row) for row in rows] == FOUND
