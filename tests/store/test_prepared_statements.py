"""Statements that a connection to PostgreSQL executes often are prepared, where its session is its own."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import Context, Store, Tx, key_sql
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.prepared import MOST, OFTEN
from gateway.store.readers import Deadline
from tests.support.postgres import execute, new_database

PREPARED = "SELECT statement FROM pg_prepared_statements ORDER BY prepare_time"
VALUES = "INSERT INTO things (number, part, text, bytes) VALUES (?, ?, ?, ?)"
THINGS = "CREATE TABLE things (id bigserial PRIMARY KEY, number bigint, part double precision, text text, bytes bytea)"
GIVEN: list[tuple[Any, ...]] = [
    (1, 0.5, "it's", b"\x00\xff"),
    (-(2**62), -1e300, "back\\slash %s $1 ? ; --", b""),
    (True, 2.0, "", b"'"),
    (None, None, None, None),
    (0, 1.0, "ä€😀", b"\\"),
]


@pytest.fixture
def at(server: PostgresServer, request: pytest.FixtureRequest) -> PostgresAddress:
    """An empty database."""
    return new_database(server, "prepared_" + str(abs(hash(request.node.nodeid))))


@pytest.fixture
def connection(at: PostgresAddress) -> Iterator[PostgresConnection]:
    """A connection to it."""
    with closing(PostgresConnection(at)) as opened:
        yield opened


def row(connection: PostgresConnection, sql: str, *values: Any) -> tuple[Any, ...]:
    """The one row that this finds."""
    (found,) = connection.execute(sql, values)
    return tuple(found)


def prepared(connection: PostgresConnection) -> list[str]:
    """The statements that the session has prepared."""
    return [row[0] for row in connection.execute(PREPARED)]


def test_a_statement_that_is_executed_often_is_prepared(connection: PostgresConnection) -> None:
    """It gives the same rows, counts and types as before."""
    asked = "SELECT ?1 AS given, ?1 + ?2 AS more, CASE WHEN ?2 > 1 THEN ?3 ELSE NULL END AS text"
    found = [row(connection, asked, 7, 2**40, "x") for _ in range(2 * OFTEN)]
    assert set(found) == {(7, 7 + 2**40, "x")}
    assert [text for text in prepared(connection) if "AS given" in text]


@pytest.mark.parametrize("is_posted", [False, True])
def test_values_arrive_as_they_are(connection: PostgresConnection, *, is_posted: bool) -> None:
    """Of each type, with quotes and what looks like placeholders, alone and posted with other statements."""
    connection.execute(THINGS)
    rows = GIVEN * (OFTEN + 1)
    for row in rows:
        connection.begin()
        (connection.post if is_posted else connection.execute)(VALUES, row)
        connection.execute("COMMIT")
    stored = [tuple(row) for row in connection.execute("SELECT number, part, text, bytes FROM things ORDER BY id")]
    assert stored == [(None if row[0] is None else int(row[0]), *row[1:]) for row in rows]
    assert any("INSERT INTO things" in text for text in prepared(connection))


def test_the_types_of_the_values_belong_to_the_statement(connection: PostgresConnection) -> None:
    """A number where a text stood, and the other way round: each comes back as what it is."""
    for value in [1, "1", 2**40, None, "x", True] * (OFTEN + 1):
        found = row(connection, "SELECT ?", value)[0]
        assert (found, type(found)) == (value, int if value is True else type(value))


def test_a_statement_that_cannot_be_prepared_stays_as_it_is(connection: PostgresConnection) -> None:
    """Such as one whose function takes no number as large as a registry's."""
    for _ in range(2 * OFTEN):
        assert row(connection, "SELECT lpad(?, ?)", "a", 2)[0] == " a"
    assert not any("lpad" in text for text in prepared(connection))


def test_a_failed_transaction_leaves_what_was_prepared(connection: PostgresConnection) -> None:
    """Preparing is outside of transactions: a rollback undoes nothing of it, and a failure ends none."""
    connection.execute(THINGS)
    for number in range(3 * OFTEN):
        connection.begin()
        connection.execute(VALUES, GIVEN[0])
        connection.execute("COMMIT" if number % 2 else "ROLLBACK")
    assert row(connection, "SELECT count(*) FROM things")[0] == (3 * OFTEN) // 2


def test_a_connection_prepares_so_many_at_most(connection: PostgresConnection) -> None:
    """Filters of lists have thousands of forms."""
    for form in range(MOST + 50):
        for _ in range(OFTEN + 1):
            assert row(connection, f"SELECT {form} + ?", 1)[0] == form + 1
    assert len(prepared(connection)) == MOST


def test_a_read_with_a_deadline_prepares_nothing(connection: PostgresConnection) -> None:
    """Its filters find few rows or many, so each gets its own plan."""
    for _ in range(2 * OFTEN):
        connection.begin_read(Deadline(60))
        assert row(connection, "SELECT 1 + ?", 1)[0] == 2
        connection.end_read()
    assert prepared(connection) == []


def test_a_new_session_prepares_anew(at: PostgresAddress, connection: PostgresConnection) -> None:
    """The server has ended the session: no name of the last one is used."""
    for _ in range(2 * OFTEN):
        connection.execute("SELECT 1 + ?", (1,))
    assert prepared(connection)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with closing(PostgresConnection(at)) as other:
        other.execute(ended.replace("%s", "?"), (at.database,))
    connection.begin()
    for _ in range(2 * OFTEN):
        assert row(connection, "SELECT 1 + ?", 1)[0] == 2
    connection.execute("COMMIT")


async def test_a_plan_that_a_newer_gateway_made_stale_costs_nothing(server: PostgresServer) -> None:
    """A column has another type than when the statement was prepared. The write is done again, and is not refused."""
    at = new_database(server, "stale_plan")

    def write(tx: Tx) -> Any:
        key_sql.set_meta(tx, "test", "1")
        return tx.value("SELECT number FROM changing WHERE number >= ?", 0)

    async with Store(at, Context()) as store:
        await store.write(lambda tx: tx.run("CREATE TABLE changing AS SELECT 1 AS number"))
        for _ in range(2 * OFTEN):
            await store.write(write)
        with closing(PostgresConnection(at)) as other:
            other.execute("ALTER TABLE changing ALTER COLUMN number TYPE bigint")
        for _ in range(2 * OFTEN):
            assert await store.write(write) == 1
        assert await store.read(lambda view: key_sql.meta(view, "test")) == "1"
    assert execute(server, "SELECT 1") == [(1,)]


async def test_a_session_that_does_not_know_the_statement_costs_nothing(server: PostgresServer) -> None:
    """A pooler that looks like the server itself has changed the session. From then on nothing is prepared."""

    def write(tx: Tx) -> Any:
        return tx.value("SELECT 1 + ?", 1)

    async with Store(new_database(server, "other_session"), Context()) as store:
        for _ in range(2 * OFTEN):
            await store.write(write)
        await store.write(lambda tx: tx.connection.execute("DEALLOCATE ALL"))
        for _ in range(2 * OFTEN):
            assert await store.write(write) == 2
        assert await store.write(lambda tx: tx.all(PREPARED)) == []
