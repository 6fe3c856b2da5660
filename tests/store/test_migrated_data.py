"""What single migrations make of the data that they find."""

import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import DATABASE_NAME, open_to_serve
from gateway.store.schema import apply
from gateway.store.sqlite.connection import connect
from tests.store.older_registry import some_data

pytestmark = pytest.mark.sqlite
"""Data of older registries, which no registry on PostgreSQL can hold."""


def test_serial_numbers_are_normalised_unless_they_would_collide(tmp_path: Path) -> None:
    """Of two that look alike each keeps its own; what is searched for is found as it is written then."""
    apart = {text: unicodedata.normalize("NFD", text) for text in ("Büro", "Çelik", "Ärzte")}
    before = {
        2: ("proj_1", apart["Büro"]),
        3: ("proj_1", " BP-3 "),
        4: ("proj_1", apart["Çelik"]),
        5: ("proj_1", "Çelik"),
        6: ("proj_2", apart["Çelik"]),
        7: ("proj_1", apart["Ärzte"]),
        8: ("proj_1", apart["Ärzte"] + " "),
    }
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m028_serial_numbers")
        for project in ("proj_1", "proj_2"):
            connection.execute("INSERT INTO projects (id, name, created_at) VALUES (?, ?, 1)", (project, project))
        for pk, (project, serial) in before.items():
            connection.execute(
                "INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, 'm', 1, 1)",
                (pk, f"dev_{pk}", project, serial),
            )
        connection.execute("INSERT INTO device_search (device_search) VALUES ('rebuild')")
    with closing(open_to_serve(tmp_path)) as connection:
        after = {row[0]: row[1] for row in connection.execute("SELECT pk, serial_number FROM devices")}
        found = connection.execute("SELECT rowid FROM device_search WHERE device_search MATCH '\"Bür\"'").fetchall()
    assert after == {
        2: "Büro",
        3: "BP-3",
        4: apart["Çelik"],
        5: "Çelik",
        6: "Çelik",
        7: "Ärzte",
        8: apart["Ärzte"] + " ",
    }
    assert [row[0] for row in found] == [2]


def test_sessions_of_devices_with_one_binding_keep_their_rights(tmp_path: Path) -> None:
    """One that was bound before, or whose token was never used, has a session of which nothing is known."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m022_broker_sessions")
        some_data(connection)
        connection.execute("DELETE FROM tokens")
        for pk, tokens in {1: "-u", 2: "uu", 3: "-n"}.items():
            if pk > 1:
                connection.execute(
                    "INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at) "
                    "VALUES (?, ?, 'proj_1', ?, 'm', 1, 1)",
                    (pk, f"dev_{pk}", f"SN-{pk}"),
                )
            for generation, used in enumerate(tokens):
                connection.execute(
                    "INSERT INTO tokens (device_pk, generation, hash, broker_entry, state, grant_kid, created_at, "
                    "first_used_at) VALUES (?, ?, ?, '$6$', ?, 'k1', 1, ?)",
                    (
                        pk,
                        generation,
                        f"{pk}{generation}".encode(),
                        "active" if generation else "revoked",
                        {"u": 5}.get(used),
                    ),
                )
    with closing(open_to_serve(tmp_path)) as connection:
        rows = connection.execute("SELECT client_id, username, credential, let_in_at FROM broker_sessions").fetchall()
    assert [tuple(row) for row in rows] == [("dev_1", "dev_1", 2, 5)]


def test_pending_events_keep_their_position(tmp_path: Path) -> None:
    """The kind of its rows and the names of its facts change; the numbers, and who comes next, do not."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m029_mirror")
        some_data(connection)
        connection.execute("DELETE FROM outbox")
        connection.execute(
            "INSERT INTO outbox (seq, kind, device_pk, detail, created_at) "
            "VALUES (70, 'command', 1, 'reboot', 1), (80, 'shown', 1, 'state', 2)"
        )
        connection.execute("INSERT INTO meta (key, value) VALUES ('shown_state', 'fleet/')")
    with closing(open_to_serve(tmp_path)) as connection:
        rows = [tuple(row) for row in connection.execute("SELECT seq, kind, detail FROM outbox ORDER BY seq")]
        facts = [
            tuple(row)
            for row in connection.execute("SELECT key, value FROM broker_facts WHERE key LIKE '%\\_state' ESCAPE '\\'")
        ]
        connection.execute("INSERT INTO outbox (kind, device_pk, detail, created_at) VALUES ('topic', 1, 'status', 3)")
        newest = connection.execute("SELECT max(seq) FROM outbox").fetchone()[0]
    assert rows == [(70, "command", "reboot"), (80, "mirror", "state")]
    assert facts == [("mirror_state", "fleet/")]
    assert newest == 81


def test_earlier_resets_are_carried_over_with_what_is_still_known(tmp_path: Path) -> None:
    """Who asked comes from the audit trail where that has it; one that was superseded is told from a cancelled one."""
    ends = {"cmd_a": "pending", "cmd_b": "executed", "cmd_c": "cancelled", "cmd_d": "cancelled", "cmd_e": "failed"}
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m031_resets")
        some_data(connection)
        for place, (command_id, status) in enumerate(ends.items(), 1):
            connection.execute(
                "INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, "
                "created_at, delivered_at, final_at) VALUES (?, 1, 'factory_reset', ?, '{}', 1, 'g', ?, 20, ?)",
                (command_id, status, place, None if status == "pending" else 30),
            )
        for name, kind, command_id in (("evt_a", "requested", "cmd_b"), ("evt_b", "superseded", "cmd_d")):
            connection.execute(
                "INSERT INTO events (id, project_id, device_pk, type, created_at, data) "
                "VALUES (?, 'proj_1', 1, ?, 1, json_object('actor', 'key_7', 'command_id', ?))",
                (name, f"reset.{kind}", command_id),
            )
    with closing(open_to_serve(tmp_path)) as connection:
        carried = connection.execute(
            "SELECT command_id, outcome, requested_at, requested_by, delivered_at, finished_at, recordings, "
            "serial_number, reason, end_user FROM resets ORDER BY command_id"
        ).fetchall()
        certificates = connection.execute("SELECT count(*) FROM certificates").fetchone()[0]
    assert [tuple(row) for row in carried] == [
        ("cmd_a", None, 1, None, 20, None, "keep", "SN-1", None, None),
        ("cmd_b", "executed", 2, "key_7", 20, 30, "keep", "SN-1", None, None),
        ("cmd_c", "cancelled", 3, None, 20, 30, "keep", "SN-1", None, None),
        ("cmd_d", "superseded", 4, None, 20, 30, "keep", "SN-1", None, None),
        ("cmd_e", "failed", 5, None, 20, 30, "keep", "SN-1", None, None),
    ]
    assert certificates == 0
