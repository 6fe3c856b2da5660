"""The tables: made step by step, each step once, whatever lies in them already."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, View, open_database, open_to_serve
from gateway.store.schema import apply, migrate
from gateway.store.sqlite.connection import connect
from tests.domain.support import World
from tests.store.older_registry import ROWS, STEPS, rows, some_data

pytestmark = pytest.mark.sqlite
"""The steps of SQLite; tests/store/test_postgres.py compares the schemas that result."""

SCHEMA = Path(__file__).parent / "golden" / "schema.sql"
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
    "m030_leaked_keys",
    "m031_resets",
    "m032_bindings",
    "m033_leases",
    "m034_device_tags",
    "m035_jobs",
    "m036_people",
]


def _schema(connection: sqlite3.Connection) -> str:
    """What ``golden/schema.sql`` holds: every statement of the schema, on one line each."""
    rows = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND tbl_name NOT LIKE '%sqlite_%' ORDER BY type DESC, name"
    )
    return "".join(" ".join(row[0].split()) + ";\n" for row in rows)


def test_released_steps_are_unchanged() -> None:
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
def test_an_older_database_is_migrated_with_its_data(tmp_path: Path, present: int) -> None:
    """From each earlier step, with a row in each of its tables: the same schema, and the rows are there."""
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        apply(connection, stop_before=STEPS[present])
        before = some_data(connection)
    with closing(open_to_serve(tmp_path)) as connection:
        assert _schema(connection) == SCHEMA.read_text(encoding="utf-8")
        assert {table: rows(connection, table) for table in before} == before
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_every_table_is_covered_by_the_data_of_these_tests(tmp_path: Path) -> None:
    """A new table wants its row here, or the steps after it are not tested with data; FTS5's own tables have theirs."""
    with closing(open_database(tmp_path)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in tables if not name.startswith(("sqlite_", "_sqlite_", "device_search"))} == set(ROWS)


def test_a_failed_step_is_rolled_back(tmp_path: Path) -> None:
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
def test_the_schema_refuses_invalid_rows(tmp_path: Path, statement: str) -> None:
    """Unknown states, a second open command of a type, a serial number twice, strangers, texts for numbers."""
    with World(tmp_path) as world:
        world.connection.execute("DELETE FROM projects")
        some_data(world.connection)
        with pytest.raises(sqlite3.IntegrityError):
            world.connection.execute(statement)


def test_frequent_queries_use_an_index(tmp_path: Path) -> None:
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
        (
            "SELECT * FROM outbox WHERE broker_pk = 1 AND kind = 'command' AND not_before <= 5 "
            "ORDER BY not_before, seq LIMIT 10"
        ),
        "SELECT max(not_before) FROM outbox WHERE broker_pk = 1 AND kind = 'command'",
        "SELECT 1 FROM outbox WHERE device_pk = 1 LIMIT 1",
        "SELECT first_id FROM history_days WHERE device_pk = 1 AND day > 5 ORDER BY day LIMIT 1",
        "SELECT count(*) FROM devices WHERE substr(project_id, 26) = 'p' AND deleted_at IS NULL",
        "SELECT * FROM events WHERE project_id = 'p' AND seq > 5 ORDER BY seq LIMIT 32",
        "SELECT * FROM events WHERE project_id = 'p' AND type = 't' AND seq < 5 ORDER BY seq DESC LIMIT 20",
        "SELECT seq FROM events WHERE id <= 'evt_1' AND +project_id = 'p' ORDER BY id DESC LIMIT 1",
        "SELECT * FROM deliveries WHERE webhook_id = 'w' AND status = 'pending' AND next_attempt_at <= 5",
        "DELETE FROM deliveries WHERE event_seq = 5",
        "SELECT * FROM deliveries WHERE webhook_id = 'w' AND status = 'pending' AND attempts = 0 ORDER BY event_seq",
        "SELECT id FROM deliveries WHERE status <> 'pending' AND last_attempt_at < 5 LIMIT 10",
        "SELECT seq FROM events WHERE substr(project_id, 26) = 'p' AND created_at < 5 ORDER BY created_at LIMIT 10",
        "SELECT seq FROM idempotency WHERE created_at <= 5 ORDER BY created_at LIMIT 10",
        (
            "SELECT 1 FROM commands WHERE status IN ('pending', 'delivered') AND expires_at IS NOT NULL "
            "AND expires_at - ttl_ms > 5"
        ),
        "SELECT pk FROM devices WHERE deleted_at >= 5",
        "SELECT 1 FROM tokens WHERE substr(grant_kid, 1, 8) = 'k' AND state <> 'revoked'",
        "SELECT * FROM sessions WHERE hash = x'00'",
        "SELECT * FROM sessions WHERE sub = 's' AND ended_at IS NULL",
        "SELECT * FROM sessions WHERE sid = 's' AND ended_at IS NULL",
        "SELECT 1 FROM spent_tokens WHERE hash = x'00'",
    ]
    with closing(open_database(tmp_path)) as connection:
        for question in asked:
            plan = [row["detail"] for row in View(connection).all(f"EXPLAIN QUERY PLAN {question}")]
            assert [step for step in plan if step.startswith("SCAN")] == [], question


# --- before a migration -----------------------------------------------------------------------------------------------
