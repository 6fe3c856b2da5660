"""Steps of PostgreSQL that change the tables of a registry with rows."""

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from gateway.store import View, device_count_sql
from gateway.store.errors import PostgresError
from gateway.store.postgres import engine
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import STEPS
from tests.support.postgres import database, execute, server

HEALTH = "flags, low_battery, storage_full, at_broker, broker_pk, history_day, pending_recordings"
PREPARED = (
    "INSERT INTO projects (id, name, created_at) VALUES ('p', 'p', 1)",
    """INSERT INTO devices (pk, id, project_id, serial_number, model, created_at, updated_at)
        VALUES (1, 'd', 'p', 's', 'm', 1, 1)""",
)
SAID = (255, 0, 1, 1, 1, 20_800, 2**53 - 1)


def test_narrow_columns_keep_their_values_and_their_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The greatest flags, too; and a battery that gets low counts as before."""
    name = f"wide_{tmp_path.name[-20:]}"
    execute(server(), f"CREATE DATABASE {name}")
    address = server().address(name)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "STEPS", {step: each for step, each in STEPS.items() if step < "p049"})
        open_registry(address).close()
    with psycopg.connect(address.url) as older:
        for statement in PREPARED:
            older.execute(statement.encode())
        older.execute(f"INSERT INTO health (device_pk, {HEALTH}) VALUES (1, {', '.join(map(str, SAID))})".encode())  # noqa: S608 - constants
    with closing(open_registry(address)) as newer:
        view = View(newer)
        assert tuple(view.all(f"SELECT {HEALTH} FROM health")[0]) == SAID  # noqa: S608 - the same
        newer.execute("UPDATE health SET low_battery = 1, connection = 'online'")
        counts = device_count_sql.of_project(view, "p")
        assert (counts.online, counts.low_battery, counts.storage_full) == (1, 1, 1)
        assert device_count_sql.counted(view) == {"p": counts}


def test_a_token_is_there_once(tmp_path: Path) -> None:
    """The index of hashes refuses a second one, and finds the first without a look at all tokens."""
    token = """INSERT INTO tokens (device_pk, generation, hash, broker_entry, state, grant_kid, created_at)
        VALUES (1, 1, ?, '', 'active', 'k', 1)"""
    with closing(open_registry(database(tmp_path))) as connection:
        for statement in (
            *PREPARED,
            "INSERT INTO signing_keys (kid, private_key, created_at) VALUES ('k', '', 1)",
            "SET enable_seqscan = off",
        ):
            connection.execute(statement)
        connection.execute(token, (bytes(32),))
        steps = [row[0] for row in connection.execute("EXPLAIN SELECT * FROM tokens WHERE hash = ?", (bytes(32),))]
        assert [step for step in steps if "tokens_hash_excl" in step], steps
        with pytest.raises(PostgresError, match="tokens_hash_excl"):
            connection.execute(token, (bytes(32),))
