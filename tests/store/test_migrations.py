"""The tables: made step by step, each step once, whatever lies in them already."""

import os
import shutil
import sqlite3
import stat
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, View, open_database, open_to_serve
from gateway.store.backup import contents
from gateway.store.opening import COPIES_KEPT
from gateway.store.schema import apply, migrate, newest_applied, steps
from gateway.store.sqlite.connection import connect, create_private
from tests.domain.support import World
from tests.support.small_disk import may_mount, small_disk

SCHEMA = Path(__file__).parent / "golden" / "schema.sql"
STEPS = steps()
LANDED = [
    "m001_registry",
    "m002_health",
    "m003_commands",
    "m004_pace_and_topics",
    "m005_webhooks",
    "m006_idempotency",
    "m007_signing_key_use",
    "m008_integrators",
    "m009_history_chain",
    "m010_traces",
    "m011_device_orders",
    "m012_links_in_use",
    "m013_webhook_gaps",
    "m014_command_ttl",
    "m015_commands_sent",
    "m016_device_search",
    "m017_old_sessions_of_accounts",
    "m018_devices_at_broker",
    "m019_search_of_end_users",
    "m020_bytes_of_idempotency",
    "m021_webhook_rotation",
    "m022_broker_sessions",
    "m023_public_keys",
    "m024_mqtt_passwords",
    "m025_event_budgets",
    "m026_command_seq",
    "m027_projects_of_accounts",
    "m028_serial_numbers",
    "m029_mirror",
]


def _schema(connection: sqlite3.Connection) -> str:
    """What ``golden/schema.sql`` holds: every statement of the schema, on one line each."""
    rows = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT LIKE '%sqlite_%' ORDER BY type DESC, name"
    )
    return "".join(" ".join(row[0].split()) + ";\n" for row in rows)


def _some_data(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """A row in each table that there is, as far as the steps have come; what is in them then."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    for table, row in _ROWS.items():
        if table in tables:
            columns, marks = ", ".join(row), ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608 - constants
    return {table: _rows(connection, table) for table in _ROWS if table in tables}


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[object, ...]]:
    columns = ", ".join(_ROWS[table])
    return [tuple(row) for row in connection.execute(f"SELECT {columns} FROM {table}")]  # noqa: S608 - constants


_ROWS: dict[str, dict[str, object]] = {
    "meta": {"key": "gateway_id", "value": "gw_1"},
    "projects": {"id": "proj_1", "name": "ward", "created_at": 1},
    "signing_keys": {"kid": "k1", "private_key": bytes(32), "created_at": 1},
    "devices": {
        "pk": 1,
        "id": "dev_1",
        "project_id": "proj_1",
        "serial_number": "SN-1",
        "model": "m",
        "created_at": 1,
        "updated_at": 1,
    },
    "tokens": {
        "device_pk": 1,
        "generation": 1,
        "hash": b"h",
        "broker_entry": "$6$",
        "state": "active",
        "grant_kid": "k1",
        "created_at": 1,
    },
    "api_keys": {
        "id": "key_1",
        "project_id": "proj_1",
        "name": "n",
        "hash": b"h",
        "hint": "sk_live_",
        "scopes": "[]",
        "created_at": 1,
    },
    "health": {"device_pk": 1, "battery_percent": 80.5, "connection": "online"},
    "event_budgets": {"device_pk": 1, "type": "device.online", "paid_until": 1},
    "heartbeats": {"device_pk": 1, "received_at": 1, "sent_at": 1, "battery_percent": 80},
    "history_days": {"device_pk": 1, "day": 9, "first_id": 1},
    "refusals": {"at": 1, "source": "s", "code": "c", "message": "m", "payload": "p"},
    "commands": {
        "id": "cmd_1",
        "device_pk": 1,
        "type": "reboot",
        "status": "pending",
        "params": "{}",
        "binding_generation": 1,
        "grant_token": "g",
        "created_at": 1,
    },
    "events": {
        "id": "evt_1",
        "project_id": "proj_1",
        "device_pk": 1,
        "type": "device.bound",
        "created_at": 1,
        "data": "{}",
    },
    "webhooks": {
        "id": "wh_1",
        "project_id": "proj_1",
        "url": "https://example.com",
        "events": "[]",
        "enabled": 1,
        "secret": bytes(24),
        "cursor": 0,
        "created_at": 1,
    },
    "webhook_gaps": {"webhook_id": "wh_1", "after_seq": 1, "up_to": 2},
    "deliveries": {
        "id": "dlv_1",
        "webhook_id": "wh_1",
        "event_seq": 1,
        "status": "pending",
        "attempts": 0,
        "created_at": 1,
    },
    "idempotency_use": {"owner": "dev_9", "bytes": 300},
    "idempotency": {
        "caller": "key_1",
        "key_hash": b"k",
        "request_hash": b"r",
        "status": 201,
        "answer": b"a",
        "created_at": 1,
    },
    "broker_accounts": {"name": "integrator", "hash": b"h", "broker_entry": "$6$", "created_at": 1},
    "broker_sessions": {"client_id": "dev_1", "username": "dev_1", "credential": 1, "let_in_at": 1},
    "outbox": {"kind": "command", "device_pk": 1, "detail": "reboot", "created_at": 1},
}


def test_the_steps_that_have_landed_stay() -> None:
    """A step is never renamed, dropped or moved: databases in the field remember it by its name."""
    assert STEPS[: len(LANDED)] == LANDED


def test_a_new_database_has_the_golden_schema(tmp_path: Path) -> None:
    """A change of the schema shows up here, and wants a new step."""
    with closing(open_database(tmp_path)) as connection:
        assert _schema(connection) == SCHEMA.read_text(encoding="utf-8")


def test_each_step_is_applied_once(tmp_path: Path) -> None:
    """All on an empty database, in order; none the next time."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        assert migrate(connection) == STEPS
        assert migrate(connection) == []
    with closing(open_database(tmp_path)) as connection:
        names = connection.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall()
        assert [row[0] for row in names] == STEPS


@pytest.mark.parametrize("present", range(len(STEPS)))
def test_an_older_database_is_brought_up_with_its_data(tmp_path: Path, present: int) -> None:
    """From each earlier step, with a row in each of its tables: the same schema, and the rows are there."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before=STEPS[present])
        before = _some_data(connection)
    with closing(open_to_serve(tmp_path)) as connection:
        assert _schema(connection) == SCHEMA.read_text(encoding="utf-8")
        assert {table: _rows(connection, table) for table in before} == before
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_every_table_is_covered_by_the_data_of_these_tests(tmp_path: Path) -> None:
    """A new table wants its row here, or the steps after it are not tested with data; FTS5's own tables have theirs."""
    with closing(open_database(tmp_path)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in tables if not name.startswith(("sqlite_", "_sqlite_", "device_search"))} == set(_ROWS)


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """It is undone whole, the ones before it stay, and the next start goes on from there."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before=STEPS[2])
        connection.execute("CREATE TABLE outbox (in_the_way)")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        assert not tables & {"commands", "events"}
        connection.execute("DROP TABLE outbox")
        assert migrate(connection) == STEPS[2:]


def test_a_database_of_a_newer_gateway_is_left_alone(tmp_path: Path) -> None:
    """An older gateway would not keep the rules of what it does not know; the error says what to do."""
    open_database(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection, connection:
        connection.execute("UPDATE _sqlite_migrations SET name = 'm999_tomorrow' WHERE name = 'm007_signing_key_use'")
    before = (tmp_path / DATABASE_NAME).read_bytes()
    with pytest.raises(StoreError, match=r"written by a newer gateway .*m999_tomorrow.*Install the newer version"):
        open_database(tmp_path)
    assert (tmp_path / DATABASE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        (
            "INSERT INTO tokens (device_pk, generation, hash, broker_entry, state, grant_kid, created_at) "
            "VALUES (1, 1, x'00', '', 'good', 'k1', 1)"
        ),
        "UPDATE commands SET status = 'done'",
        "UPDATE health SET connection = 'maybe'",
        "INSERT INTO outbox (kind, device_pk, detail, created_at) VALUES ('letter', 1, '', 1)",
        (
            "INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at) "
            "VALUES ('cmd_2', 1, 'reboot', 'delivered', '{}', 1, 'g', 1)"
        ),
        (
            "INSERT INTO devices (id, project_id, serial_number, model, created_at, updated_at) "
            "VALUES ('dev_2', 'proj_1', 'SN-1', 'm', 1, 1)"
        ),
        (
            "INSERT INTO commands (id, device_pk, type, status, params, binding_generation, grant_token, created_at) "
            "VALUES ('cmd_3', 99, 'reboot', 'pending', '{}', 1, 'g', 1)"
        ),
        "UPDATE devices SET created_at = 'yesterday'",
    ],
)
def test_the_schema_refuses_what_must_not_be(tmp_path: Path, statement: str) -> None:
    """Unknown states, a second open command of a type, a serial number twice, strangers, texts for numbers."""
    with World(tmp_path) as world:
        world.connection.execute("DELETE FROM projects")
        _some_data(world.connection)
        with pytest.raises(sqlite3.IntegrityError):
            world.connection.execute(statement)


def test_the_hot_questions_are_answered_by_an_index(tmp_path: Path) -> None:
    """What is asked for each heartbeat, each second or each connect walks no table from end to end."""
    asked = [
        "SELECT * FROM tokens WHERE hash = x'00'",
        "SELECT * FROM tokens WHERE device_pk = 1 AND state <> 'revoked' ORDER BY id DESC",
        "SELECT 1 FROM health WHERE connection = 'online' AND offline_due_at <= 5",
        "SELECT * FROM commands WHERE device_pk = 1 AND type = 'reboot' AND status IN ('pending', 'delivered')",
        "SELECT * FROM commands WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL AND expires_at < 5",
        "SELECT 1 FROM heartbeats WHERE device_pk = 1 AND sent_at = 5",
        "SELECT * FROM outbox WHERE kind = 'command' AND device_pk = 1 AND detail = 'reboot'",
        "SELECT * FROM events WHERE device_pk = 1 ORDER BY seq DESC LIMIT 100",
        "SELECT * FROM devices WHERE project_id = 'p' AND serial_number = 's'",
        "SELECT * FROM outbox WHERE kind = 'command' AND not_before <= 5 ORDER BY not_before, seq LIMIT 10",
        "SELECT max(not_before) FROM outbox WHERE kind = 'command'",
        "SELECT 1 FROM outbox WHERE device_pk = 1 LIMIT 1",
        "SELECT first_id FROM history_days WHERE device_pk = 1 AND day > 5 ORDER BY day LIMIT 1",
        "SELECT count(*) FROM devices WHERE project_id = 'p' AND deleted_at IS NULL",
        "SELECT * FROM events WHERE project_id = 'p' AND seq > 5 ORDER BY seq LIMIT 32",
        "SELECT * FROM events WHERE project_id = 'p' AND type = 't' AND seq < 5 ORDER BY seq DESC LIMIT 20",
        "SELECT seq FROM events WHERE id <= 'evt_1' AND +project_id = 'p' ORDER BY id DESC LIMIT 1",
        "SELECT * FROM deliveries WHERE webhook_id = 'w' AND status = 'pending' AND next_attempt_at <= 5",
        "DELETE FROM deliveries WHERE event_seq = 5",
        "SELECT * FROM deliveries WHERE webhook_id = 'w' AND status = 'pending' AND attempts = 0 ORDER BY event_seq",
        "SELECT id FROM deliveries WHERE status <> 'pending' AND last_attempt_at < 5 LIMIT 10",
        "SELECT seq FROM events WHERE created_at < 5 ORDER BY created_at LIMIT 10",
        "SELECT seq FROM idempotency WHERE created_at <= 5 ORDER BY created_at LIMIT 10",
        (
            "SELECT 1 FROM commands WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL "
            "AND expires_at - ttl_ms > 5"
        ),
        "SELECT pk FROM devices WHERE deleted_at >= 5",
        "SELECT 1 FROM tokens WHERE grant_kid = 'k' AND state <> 'revoked'",
    ]
    with closing(open_database(tmp_path)) as connection:
        for question in asked:
            plan = [row["detail"] for row in View(connection).all(f"EXPLAIN QUERY PLAN {question}")]
            assert [step for step in plan if step.startswith("SCAN")] == [], question


# --- before a migration -----------------------------------------------------------------------------------------------


def _older(data_dir: Path, present: int = -1) -> None:
    """A registry of an earlier version, with data."""
    create_private(data_dir / DATABASE_NAME)
    with closing(connect(data_dir / DATABASE_NAME)) as connection:
        apply(connection, stop_before=STEPS[present])
        _some_data(connection)


def _copies(data_dir: Path) -> list[Path]:
    return sorted(data_dir.glob(f"{DATABASE_NAME}.m[0-9]*"), key=lambda file: file.stat().st_mtime_ns)


def test_the_copy_is_the_registry_as_it_was(tmp_path: Path) -> None:
    """Whole, of the earlier schema, readable by its owner alone, and good for a restore."""
    _older(tmp_path)
    open_to_serve(tmp_path).close()
    (copy,) = _copies(tmp_path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert copy.name.startswith(f"{DATABASE_NAME}.{STEPS[-2]}.")
    assert contents(copy).devices == 1
    with closing(sqlite3.connect(copy)) as connection:
        assert newest_applied(connection) == STEPS[-2]
        assert _rows(connection, "commands") == [tuple(_ROWS["commands"].values())]


def test_a_new_registry_is_not_copied(tmp_path: Path) -> None:
    """Neither one that is made, nor one that has this version's schema."""
    for _ in range(2):
        open_to_serve(tmp_path).close()
    assert _copies(tmp_path) == []


def test_so_many_copies_are_kept(tmp_path: Path) -> None:
    """The newest; a backup that somebody put there is left alone."""
    (tmp_path / f"{DATABASE_NAME}.mine").write_text("kept")
    seen: list[Path] = []
    for _ in range(COPIES_KEPT + 2):
        for side in ("", "-wal", "-shm"):
            (tmp_path / f"{DATABASE_NAME}{side}").unlink(missing_ok=True)
        _older(tmp_path)
        open_to_serve(tmp_path).close()
        seen += [each for each in _copies(tmp_path) if each not in seen]
        os.utime(seen[-1], ns=(len(seen), len(seen)))
    assert len(seen) == COPIES_KEPT + 2
    assert _copies(tmp_path) == seen[-COPIES_KEPT:]
    assert (tmp_path / f"{DATABASE_NAME}.mine").read_text() == "kept"


def test_a_migration_that_fails_leaves_no_copies(tmp_path: Path) -> None:
    """A service that is started again and again would fill the disk; nothing has changed, so none is needed."""
    _older(tmp_path, present=3)
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE outbox_new (in_the_way)")
    for _ in range(2):
        with pytest.raises(StoreError, match="already exists"):
            open_to_serve(tmp_path)
        assert _copies(tmp_path) == []


@pytest.mark.skipif(not may_mount(), reason="needs root: it mounts a small file system")
def test_without_room_for_the_copy_nothing_is_migrated(tmp_path: Path) -> None:
    """The message says how much it takes and how to migrate without a copy."""
    with small_disk(tmp_path / "disk", 4_096) as disk:
        _older(disk)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - (disk / DATABASE_NAME).stat().st_size))
        with pytest.raises(StoreError, match=r"free space.*Nothing was changed.*--no-copy"):
            open_to_serve(disk)
        assert _copies(disk) == []
        with closing(connect(disk / DATABASE_NAME, read_only=True)) as connection:
            assert newest_applied(connection) == STEPS[-2]
        filler.unlink()
        open_to_serve(disk).close()


def test_a_command_refuses_an_older_registry(tmp_path: Path) -> None:
    """It changes nothing, and says what does."""
    _older(tmp_path)
    with pytest.raises(StoreError, match=rf"{STEPS[-2]}.*{STEPS[-1]}.*Nothing was changed.*Restart.*migrate-schema"):
        open_database(tmp_path)
    with closing(connect(tmp_path / DATABASE_NAME, read_only=True)) as connection:
        assert newest_applied(connection) == STEPS[-2]


def test_serial_numbers_get_their_normal_form_unless_that_is_taken(tmp_path: Path) -> None:
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


def test_sessions_of_devices_with_one_binding_keep_their_rights_over_the_upgrade(tmp_path: Path) -> None:
    """One that was bound before, or whose token was never used, has a session of which nothing is known."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m022_broker_sessions")
        _some_data(connection)
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


def test_what_waits_for_integrators_keeps_its_place_over_the_upgrade(tmp_path: Path) -> None:
    """The kind of its rows and the names of its facts change; the numbers, and who comes next, do not."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before="m029_mirror")
        _some_data(connection)
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
            for row in connection.execute("SELECT key, value FROM meta WHERE key LIKE '%\\_state' ESCAPE '\\'")
        ]
        connection.execute("INSERT INTO outbox (kind, device_pk, detail, created_at) VALUES ('topic', 1, 'status', 3)")
        newest = connection.execute("SELECT max(seq) FROM outbox").fetchone()[0]
    assert rows == [(70, "command", "reboot"), (80, "mirror", "state")]
    assert facts == [("mirror_state", "fleet/")]
    assert newest == 81
