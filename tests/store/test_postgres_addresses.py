"""A wrong address, a wrong server, a database that is not ours: one line with the remedy, and nothing half done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from unittest.mock import ANY

import psycopg
import pytest

from gateway.cli import main
from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import open_database
from gateway.store.errors import OPENED, store_error
from gateway.store.postgres import engine
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.failures import postgres_error
from gateway.store.postgres.steps import STEPS
from tests.support.ports import closed_port
from tests.support.postgres import execute, new_database


def said(database: str, data: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command on this database, and its lines on stderr."""
    code = main([*(words or ("keys", "list")), "--data-dir", str(data), "--database", database])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("database", "code", "message"),
    [
        (
            "mysql://gateway:hush@db/registry",
            2,
            "database: '********' (from option --database) should be postgresql://",
        ),
        ("postgresql://careful:wrong-hush@/postgres?host={folder}", 1, "refuses this user or password"),
        ("postgresql://unknown@/postgres?host={folder}", 1, "refuses this user or password"),
        ("postgresql://gateway@/elsewhere?host={folder}", 1, "has no such database: create it ('createdb')"),
        ("postgresql://gateway:hush@127.0.0.1:{closed}/registry", 1, "cannot be reached: check that it runs"),
        ("postgresql://gateway@/postgres?host={folder}", 4, "There is no registry in postgresql://gateway@/postgres"),
    ],
)
def test_a_wrong_address_gets_one_line(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], database: str, code: int, message: str
) -> None:
    """It names the setting and the remedy, and never the password; the exit code is the documented one."""
    with closed_port() as closed:
        found, lines = said(database.format(folder=server.folder, closed=closed), tmp_path, capsys)
    assert (found, message in lines) == (code, True), lines
    errors = [line for line in lines.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert "hush" not in lines
    assert not list(tmp_path.iterdir())


def test_a_server_with_a_full_disk_says_so() -> None:
    """As a session of it tells when it begins: libpq has no code for that either."""
    reason = 'FATAL:  could not write to file "base/16384/pg_internal.init": No space left on device'
    told = store_error(postgres_error(psycopg.OperationalError(reason)), OPENED, again=False).message
    assert told.endswith("The disk of the PostgreSQL server is full: free some space there.")


@pytest.mark.parametrize(
    "reason",
    [
        'root certificate file "/home/gateway/.postgresql/root.crt" does not exist',
        "server does not support SSL, but SSL was required",
        'server certificate for "db" does not match host name "db1"',
    ],
)
def test_a_connection_without_tls_says_what_to_name(reason: str) -> None:
    """As libpq tells it, which has no code for it."""
    told = store_error(
        postgres_error(psycopg.OperationalError(f"connection failed: {reason}")), OPENED, again=False
    ).message
    assert "name the authority of the server's certificate (sslrootcert=FILE in the setting 'database')" in told


def test_a_user_without_rights_makes_nothing(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first start says what to grant, and leaves no table."""
    new_database(server, "foreign_owner")
    code, lines = said(server.address("foreign_owner", "guest").url, tmp_path, capsys, "keys", "create", "--name", "x")
    assert (code, "lacks a right: make it the owner" in lines) == (1, True), lines
    assert _tables(server.address("foreign_owner")) == []


def test_a_database_of_another_program_is_left_alone(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tables are named, and stay the only ones."""
    address = new_database(server, "of_a_shop")
    with closing(PostgresConnection(address)) as connection:
        connection.execute("CREATE TABLE orders (id int)")
    code, lines = said(address.url, tmp_path, capsys, "keys", "create", "--name", "x")
    assert (code, "not a registry's (orders). Nothing was changed. Create an empty" in lines) == (1, True), lines
    assert _tables(address) == ["orders"]


def test_a_read_only_server_is_refused(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a standby answers; with several hosts the one that takes writes is used."""
    address = new_database(server, "standby")
    execute(server, "ALTER DATABASE standby SET default_transaction_read_only = on")
    code, lines = said(address.url, tmp_path, capsys)
    assert (code, "read-only standby: name the primary in the setting 'database', or all hosts" in lines) == (1, True)
    execute(server, "ALTER DATABASE standby RESET default_transaction_read_only")
    with closed_port() as closed:
        several = f"postgresql://gateway@/standby?host=127.0.0.1,{server.folder}&port={closed},5432"
        assert said(several, tmp_path, capsys, "keys", "create", "--name", "x")[0] == 0


def test_an_old_server_is_refused(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of the version after this one would be needed."""
    monkeypatch.setattr(engine, "OLDEST_SERVER", 990_000)
    code, lines = said(server.address().url, tmp_path, capsys)
    assert (code, "the gateway needs 99 or newer. Upgrade the server" in lines) == (1, True), lines


def test_commands_refuse_an_older_schema(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change nothing; 'migrate-schema' brings it up, and says from where to where."""
    address = new_database(server, "older")
    steps = dict(list(STEPS.items())[:-1])
    with monkeypatch.context() as before:
        before.setattr(engine, "STEPS", steps)
        open_database(address).close()
    code, lines = said(address.url, tmp_path, capsys)
    assert (code, f"has the schema {max(steps)}, older than" in lines) == (1, True), lines
    assert main(["migrate-schema", "--json", "--data-dir", str(tmp_path), "--database", address.url]) == 0
    assert f'"from": "{max(steps)}"' in capsys.readouterr().out
    assert said(address.url, tmp_path, capsys)[0] == 0


def test_backup_names_the_tools_of_the_server(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses, and so does restore; no file is made."""
    monkeypatch.setenv("GATEWAY_DATABASE", server.address().url)
    for word in ("backup", "restore"):
        assert main([word, str(tmp_path / "copy.db")]) == 5
        assert "pg_dump and pg_restore, or continuously with pgBackRest" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_password_can_stand_elsewhere(
    server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file of the setting, in PGPASSWORD, or in the file of PGPASSFILE."""
    address = new_database(server, "guarded")
    execute(server, "ALTER DATABASE guarded OWNER TO careful")
    url = server.address(address.database, "careful").url
    file = tmp_path / "password"
    file.write_text("right\n")
    monkeypatch.setenv("GATEWAY_DATABASE_PASSWORD_FILE", str(file))
    assert said(url, tmp_path, capsys, "keys", "create", "--name", "x") == (0, ANY)
    file.write_text("")
    code, lines = said(url, tmp_path, capsys)
    assert (code, "'database_password_file' should hold the password of the database user" in lines) == (1, True), lines
    monkeypatch.delenv("GATEWAY_DATABASE_PASSWORD_FILE")
    with monkeypatch.context() as variable:
        variable.setenv("PGPASSWORD", "right")
        assert said(url, tmp_path, capsys)[0] == 0
    passes = tmp_path / "passes"
    passes.write_text("*:*:*:careful:right\n")
    passes.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passes))
    assert said(url, tmp_path, capsys)[0] == 0


def _tables(address: PostgresAddress) -> list[str]:
    with closing(PostgresConnection(address)) as connection:
        return [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
