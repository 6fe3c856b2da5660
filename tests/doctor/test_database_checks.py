"""The doctor on a registry on PostgreSQL: a server that loses data, an older schema, rights that are missing."""

from __future__ import annotations

from pathlib import Path

import psycopg

from gateway.doctor.database_checks import database
from gateway.doctor.findings import Finding, Level
from gateway.settings.loading import load
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.steps import STEP_TABLE, names
from tests.support import postgres
from tests.support.ports import closed_port


def examined(url: str) -> dict[str, Finding]:
    """Findings by their names."""
    return {each.name: each for each in database(load({"database": url}, {}).settings)}


def test_a_registry_is_examined(tmp_path: Path) -> None:
    """Server, rights, connections, schema and contents are well; the test's server has neither fsync nor autovacuum."""
    address = postgres.database(tmp_path)
    found = examined(address.url)
    bad = {name: each.level for name, each in found.items() if each.level is not Level.OK}
    assert bad == {"durability": Level.ERROR, "autovacuum": Level.WARNING}
    assert "fsync is off, so a crash can lose resets that were accepted" in found["durability"].says
    assert found["version"].says.startswith("PostgreSQL 1")
    assert found["contents"].says.startswith("0 devices")
    connection = PostgresConnection(address)
    connection.execute(f"DELETE FROM {STEP_TABLE} WHERE name = ?", (names()[-1],))  # noqa: S608 - a constant
    connection.execute(f"ALTER DATABASE {address.database} SET synchronous_commit = off")
    connection.close()
    found = examined(address.url)
    assert found["schema"].level is Level.WARNING
    assert "Restart the gateway with this version" in str(found["schema"].remedy)
    assert "fsync, synchronous_commit is off" in found["durability"].says
    remedy = str(found["durability"].remedy)
    assert "Set fsync = on in the server's postgresql.conf" in remedy
    assert f'ALTER DATABASE "{address.database}" RESET synchronous_commit. Then restart the gateways.' in remedy
    assert "contents" not in found


def test_a_user_that_may_only_read_is_reported(tmp_path: Path) -> None:
    """A gateway of that user would answer 503 to each write."""
    address = postgres.database(tmp_path)
    with psycopg.connect(address.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE only_reader LOGIN")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reader")
    found = examined(postgres.server().address(address.database, "only_reader").url)
    assert (found["rights"].level, found["tables"].level) == (Level.WARNING, Level.ERROR)
    assert ("the first api_keys" in found["tables"].says, "REASSIGN OWNED" in str(found["tables"].remedy)) == (
        True,
        True,
    )
    assert found["contents"].says.startswith("0 devices")


def test_an_empty_database_has_no_registry() -> None:
    """What makes one is said."""
    found = examined(postgres.server().address().url)
    assert found["schema"].level is Level.ERROR
    assert "'gateway serve' makes a new one" in str(found["schema"].remedy)


def test_a_server_that_is_away_is_the_only_finding() -> None:
    """With the setting to look at, and without the password."""
    with closed_port() as closed:
        found = examined(f"postgresql://gateway:hush@127.0.0.1:{closed}/registry")
    assert list(found) == ["reachable"]
    assert "check that it runs, and the setting 'database'" in found["reachable"].says
    assert "hush" not in str(found)
