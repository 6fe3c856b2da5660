"""Events of earlier versions are found by their actor, and earlier resets have the name of who asked."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from gateway.models.events import ListProjectEvents
from gateway.store import DATABASE_NAME, View, event_list, open_to_serve
from gateway.store.engine import DatabaseConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import STEP_TABLE
from gateway.store.schema import apply
from gateway.store.sqlite.connection import connect
from tests.support.postgres import database

EVENTS: dict[str, tuple[int | None, dict[str, object]]] = {
    "evt_1": (1, {"device_id": "dev_1", "actor": "dev_1"}),
    "evt_2": (1, {"device_id": "dev_1", "actor": "key_1", "actor_name": "back end", "reason": 'x "actor": "key_9"'}),
    "evt_3": (1, {"device_id": "dev_1", "actor": "gateway", "error": "\0"}),
    "evt_4": (None, {"actor": "cli", "actor_name": "root"}),
    "evt_5": (None, {}),
}
"""Each with its device and its facts, as earlier versions wrote them."""
BY_ACTOR = {"dev_1": ["evt_1"], "key_1": ["evt_2"], "gateway": ["evt_3"], "cli": ["evt_4"], "key_9": []}


def insert(connection: DatabaseConnection) -> None:
    """Fill a registry of the version before."""
    for statement in (
        "INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'ward', 1)",
        """INSERT INTO devices (id, project_id, serial_number, model, created_at, updated_at)
            VALUES ('dev_1', 'proj_1', 'SN-1', 'bota_pin', 1, 1)""",
    ):
        connection.execute(statement)
    for key, name in (("key_1", "back end"), ("key_2", "app of eu_42")):
        connection.execute(
            """INSERT INTO api_keys (id, project_id, name, hash, hint, scopes, created_at)
                VALUES (?, 'proj_1', ?, ?, 'sk_live_', '[]', 1)""",
            (key, name, key.encode()),
        )
    for event_id, (device_pk, data) in EVENTS.items():
        connection.execute(
            "INSERT INTO events (id, project_id, device_pk, type, created_at, data) VALUES (?, 'proj_1', ?, 't', 1, ?)",
            (event_id, device_pk, json.dumps(data, ensure_ascii=False)),
        )
    for number, key in enumerate(("key_1", "key_2", "key_3"), 1):
        connection.execute(
            """INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at)
                VALUES (?, 1, 'factory_reset', 'executed', '{}', 1, 'g', 1)""",
            (f"cmd_{number}",),
        )
        connection.execute(
            """INSERT INTO resets (command_id, device_pk, project_id, requested_at, requested_by, recordings,
                serial_number, model, generation_before) VALUES (?, 1, 'proj_1', 1, ?, 'keep', 'SN-1', 'm', 1)""",
            (f"cmd_{number}", key),
        )


def insert_jobs(connection: DatabaseConnection) -> None:
    """Jobs of three keys, one of which is not there."""
    for number, key in enumerate(("key_1", "key_2", "key_3"), 1):
        connection.execute(
            """INSERT INTO jobs (id, project_id, name, type, params, status, created_by, created_at, per_minute)
                VALUES (?, 'proj_1', 'Recall', 'factory_reset', '{}', 'completed', ?, 1, 60)""",
            (f"job_{number}", key),
        )


def check(connection: DatabaseConnection) -> None:
    """Look at them with this version."""
    view = View(connection)
    found = {
        actor: [each.id for each in event_list.page_of_project(view, "proj_1", ListProjectEvents(actor=actor), None, 9)]
        for actor in BY_ACTOR
    }
    assert found == BY_ACTOR
    names = view.all("SELECT requested_by, requested_by_name FROM resets ORDER BY command_id")
    assert [tuple(row) for row in names] == [("key_1", "back end"), ("key_2", None), ("key_3", None)]
    jobs = view.all("SELECT created_by, created_by_name FROM jobs ORDER BY id")
    assert [tuple(row) for row in jobs] == [("key_1", "back end"), ("key_2", None), ("key_3", None)]
    assert [each.actor for each in event_list.actors(view, "proj_1")] == ["cli", "gateway", "key_1"]


@pytest.mark.sqlite
def test_sqlite_carries_them_over(tmp_path: Path) -> None:
    """Also one that has a NUL or quotes an actor; one without an actor stays."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m037_event_actor")
        insert(connection)
        insert_jobs(connection)
    with closing(open_to_serve(tmp_path)) as connection:
        check(connection)


def test_postgresql_carries_them_over(tmp_path: Path) -> None:
    """The same."""
    address = database(tmp_path)
    with closing(open_registry(address)) as connection:
        connection.begin()
        connection.execute("ALTER TABLE events DROP COLUMN actor")
        connection.execute("ALTER TABLE resets DROP COLUMN requested_by_name")
        connection.execute("ALTER TABLE jobs DROP COLUMN created_by_name")
        connection.execute(f"DELETE FROM {STEP_TABLE} WHERE name = 'p037_event_actor'")  # noqa: S608 - a constant
        insert(connection)
        insert_jobs(connection)
        connection.execute("COMMIT")
    with closing(open_registry(address)) as connection:
        check(connection)
