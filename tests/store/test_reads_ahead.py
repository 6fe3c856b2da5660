"""Reads that a transaction sends ahead: fewer round trips to PostgreSQL, and the same results."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import Ahead, View
from gateway.store.errors import PostgresError
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.sqlite.connection import connect
from tests.support.messages import Messages
from tests.support.postgres import new_database

TABLES = (
    "CREATE TABLE things (number bigint, name text)",
    "CREATE TABLE others (number bigint, name text)",
    "INSERT INTO things VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO others VALUES (1, 'x')",
)


@pytest.fixture
def at(server: PostgresServer, request: pytest.FixtureRequest) -> PostgresAddress:
    """An empty database."""
    return new_database(server, "ahead_" + str(abs(hash(request.node.nodeid))))


@pytest.fixture
def connection(at: PostgresAddress) -> Iterator[PostgresConnection]:
    """A connection to it, in a transaction."""
    with closing(PostgresConnection(at)) as opened:
        for statement in TABLES:
            opened.execute(statement)
        opened.begin()
        yield opened


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Messages:
    """Those to the server, from now on."""
    return Messages(monkeypatch)


def name(view: View, number: int, table: str = "things") -> Any:
    """The name of a thing."""
    return view.value(f"SELECT name FROM {table} WHERE number = ?", number)  # noqa: S608 - a constant


def test_reads_that_are_sent_ahead_are_one_message(connection: PostgresConnection, messages: Messages) -> None:
    """Each gets the answer to its statement and its values, in any order; a read of no row finds none."""
    view = View(connection)
    view.read_ahead(*(lambda view, number=number: name(view, number) for number in (1, 2, 3)))
    assert len(messages.sent) == 0
    assert [name(view, number) for number in (2, 3, 1)] == ["b", None, "a"]
    assert len(messages.sent) == 1


def test_an_answer_is_given_once(connection: PostgresConnection, messages: Messages) -> None:
    """The next read asks the server."""
    view = View(connection)
    view.read_ahead(lambda view: name(view, 1))
    assert [name(view, 1), name(view, 1)] == ["a", "a"]
    assert len(messages.sent) == 2


@pytest.mark.parametrize("way", ["execute", "post", "executemany"])
def test_a_write_to_the_table_makes_it_read_again(connection: PostgresConnection, way: str) -> None:
    """Whichever way the write takes: the answer from before it counts no longer."""
    view = View(connection)
    view.read_ahead(lambda view: name(view, 1), lambda view: name(view, 2))
    assert name(view, 2) == "b"
    change = "UPDATE things SET name = ? WHERE number = 1"
    getattr(connection, way)(change, [("new",)] if way == "executemany" else ("new",))
    assert name(view, 1) == "new"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO things VALUES (7, 'new')",
        "DELETE FROM things WHERE number = 7",
        "WITH changed AS (UPDATE things SET name = 'new' RETURNING 1) SELECT count(*) FROM changed",
        "TRUNCATE things",
    ],
)
def test_no_answer_outlives_a_change_of_what_it_read(connection: PostgresConnection, statement: str) -> None:
    """Each kind of statement that changes rows; what tells no table ends all answers."""
    view, count = View(connection), "SELECT count(*) FROM things WHERE name = 'new' OR number > ?"
    view.read_ahead(lambda view: view.value(count, 5))
    connection.execute(statement)
    with closing(PostgresConnection(connection._address)) as _:  # noqa: SLF001 - as another reader would see it
        asked = connection.execute(count.replace("count(*)", "  count(*)"), (5,)).fetchone()[0]
    assert view.value(count, 5) == asked


def test_a_write_to_another_table_leaves_the_answer(connection: PostgresConnection, messages: Messages) -> None:
    """Its statement goes with the next message."""
    view = View(connection)
    view.read_ahead(lambda view: name(view, 1), lambda view: name(view, 1, "others"))
    connection.post("UPDATE others SET name = 'y'")
    assert (name(view, 1), len(messages.sent)) == ("a", 1)
    assert (name(view, 1, "others"), len(messages.sent)) == ("y", 2)


def _about(number: int, device_id: str | None) -> Ahead:
    return Ahead([lambda view: view.value("SELECT id FROM devices WHERE pk = ?", number)], device_id)


@pytest.mark.parametrize(
    ("read", "written", "statement", "times_read"),
    [
        ("dev_1", "dev_2", "UPDATE devices SET id = 'new'", 1),  # the answer is still good
        ("dev_1", "dev_1", "UPDATE devices SET id = 'new'", 2),
        ("dev_1", None, "UPDATE devices SET id = 'new'", 2),  # a write that may be about several
        (None, "dev_2", "UPDATE devices SET id = 'new'", 2),
        ("dev_1", "dev_2", "UPDATE things SET name = 'new'", 1),  # not a table that the read names
    ],
)
def test_a_write_about_one_device_leaves_answers_about_others(
    connection: PostgresConnection,
    messages: Messages,
    read: str | None,
    written: str | None,
    statement: str,
    times_read: int,
) -> None:
    """In the tables where the rows of a device are its own."""
    connection.execute("CREATE TABLE devices (pk bigint, id text)")
    messages.forget()
    connection.read_ahead(_about(1, read))
    connection.writes_about(written)
    connection.post(statement)
    _about(1, read).reads[0](View(connection))
    connection.flush()
    assert "".join(messages.sent).count("SELECT id") == times_read


def test_a_table_that_devices_share_ends_answers_about_each(connection: PostgresConnection, messages: Messages) -> None:
    """A write about one device may change what is read about another one there."""
    messages.forget()
    connection.read_ahead(Ahead([lambda view: name(view, 1)], "dev_1"))
    connection.writes_about("dev_2")
    connection.post("UPDATE things SET name = 'new'")
    assert name(View(connection), 1) == "new"


def test_a_rollback_to_a_savepoint_that_was_not_sent_leaves_the_answers(
    connection: PostgresConnection, messages: Messages
) -> None:
    """Nothing of what it undoes has reached the server."""
    View(connection).read_ahead(lambda view: name(view, 1), lambda view: name(view, 2))
    assert name(View(connection), 1) == "a"
    connection.post("SAVEPOINT job")
    connection.execute("ROLLBACK TO job")
    assert (name(View(connection), 2), len(messages.sent)) == ("b", 1)


def test_reads_at_the_end_of_a_transaction_go_with_its_commit(
    connection: PostgresConnection, messages: Messages
) -> None:
    """They see what it has written. Their answers are there until the next transaction."""
    connection.post("UPDATE things SET name = 'new' WHERE number = 1")
    connection.commit_with([lambda view: name(view, 1), lambda view: name(view, 2)])
    assert (name(View(connection), 1), len(messages.sent)) == ("new", 1)
    connection.begin()
    messages.forget()
    assert (name(View(connection), 2), len(messages.sent)) == ("b", 1)


def test_a_read_at_the_end_that_fails_commits_nothing(connection: PostgresConnection, at: PostgresAddress) -> None:
    """So the writer can run the transaction again without it, and no caller is told that it failed."""
    connection.post("UPDATE things SET name = 'new' WHERE number = 1")
    with pytest.raises(PostgresError, match="no_such_table"):
        connection.commit_with([lambda view: view.value("SELECT 1 FROM no_such_table")])
    with psycopg.connect(at.url) as other:
        assert other.execute("SELECT name FROM things WHERE number = 1").fetchone() == ("a",)


@pytest.mark.parametrize("undo", ["ROLLBACK TO job", "ROLLBACK"])
def test_a_rollback_ends_all_answers(connection: PostgresConnection, undo: str) -> None:
    """They may be of what is undone."""
    view = View(connection)
    connection.execute("SAVEPOINT job")
    connection.execute("UPDATE things SET name = 'new'")
    view.read_ahead(lambda view: name(view, 1), lambda view: name(view, 2))
    assert name(view, 1) == "new"
    connection.execute(undo)
    assert name(view, 2) == "b"


def test_the_next_transaction_reads_again(connection: PostgresConnection, at: PostgresAddress) -> None:
    """Another session has changed it meanwhile."""
    view = View(connection)
    view.read_ahead(lambda view: name(view, 1))
    connection.execute("COMMIT")
    with psycopg.connect(at.url, autocommit=True) as other:
        other.execute("UPDATE things SET name = 'new'")
    connection.begin()
    assert name(view, 1) == "new"


def test_without_a_transaction_an_answer_ends_with_its_read(
    connection: PostgresConnection, at: PostgresAddress
) -> None:
    """A read that failed after it sent something ahead leaves nothing to the next."""
    connection.execute("COMMIT")
    view = View(connection)
    view.read_ahead(lambda view: name(view, 1))
    with psycopg.connect(at.url, autocommit=True) as other:
        other.execute("UPDATE things SET name = 'new'")
    connection.refresh()  # each read begins with this
    assert name(view, 1) == "new"


def test_a_read_that_asks_nothing_is_no_message(connection: PostgresConnection, messages: Messages) -> None:
    """Such as one that knows the answer."""
    View(connection).read_ahead(lambda _: None)
    connection.flush()
    assert messages.sent == []


def test_on_sqlite_it_reads_when_it_is_asked(tmp_path: Path) -> None:
    """A read there is a call in the process."""
    with closing(connect(tmp_path / "gateway.db")) as connection:
        for statement in TABLES:
            connection.execute(statement)
        view = View(connection)
        view.read_ahead(lambda view: name(view, 1))
        connection.execute("UPDATE things SET name = 'new'")
        assert name(view, 1) == "new"
