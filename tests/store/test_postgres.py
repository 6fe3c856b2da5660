"""The registry on PostgreSQL: writes of two gateways at once, lost connections, clear errors."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from gateway.core import ids
from gateway.core.postgres_address import PostgresAddress
from gateway.errors import StoreError
from gateway.store import Context, Store, Tx, View, event_sql, key_sql, location, open_database
from gateway.store.batch import Batch
from gateway.store.errors import PostgresError
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.statements import translated
from gateway.store.postgres.steps import STEP_TABLE
from tests.support.postgres import database, sessions

WRITES = 40


async def test_two_gateways_write_at_once(tmp_path: Path) -> None:
    """Each write is whole, and events have the numbers of their commits, without a gap."""
    address = database(tmp_path)

    def write(tx: Tx) -> str:
        project_id = key_sql.create_project(tx, tx.context.ids.new(ids.PROJECT, tx.now))
        event_sql.record_administrative(tx, project_id, "project.created", "cli")
        return project_id

    async with Store(address, Context()) as one, Store(address, Context()) as other:
        made = await asyncio.gather(*(store.write(write) for _ in range(WRITES) for store in (one, other)))
        found = await one.read(lambda view: view.all("SELECT seq, project_id FROM events ORDER BY seq"))
        projects = await other.read(lambda view: [each.id for each in key_sql.projects(view)])
    assert [row["seq"] for row in found] == list(range(1, 2 * WRITES + 1))
    assert sorted(row["project_id"] for row in found) == sorted(made) == sorted(projects)


async def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Neither its rows nor its event's number; writes of the same group stand."""
    async with Store(database(tmp_path), Context()) as store:

        def fails(tx: Tx) -> None:
            event_sql.record_administrative(tx, "proj_1", "project.created", "cli")
            raise LookupError("after the event")

        def works(tx: Tx) -> None:
            event_sql.record_administrative(tx, "proj_2", "project.created", "cli")

        outcomes = await asyncio.gather(*(store.write(each) for each in (works, fails, works)), return_exceptions=True)
        rows = await store.read(lambda view: view.all("SELECT seq, project_id FROM events ORDER BY seq"))
    assert [type(each) for each in outcomes] == [type(None), LookupError, type(None)]
    assert [(row["seq"], row["project_id"]) for row in rows] == [(1, "proj_2"), (2, "proj_2")]


async def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    """What has not begun runs on a new connection. What has begun fails with a remedy, and the next one succeeds."""
    address = database(tmp_path)
    async with Store(address, Context()) as store:
        await store.write(lambda tx: key_sql.create_project(tx, "before"))
        await store.read(key_sql.projects)
        _end_sessions(address)
        await store.write(lambda tx: key_sql.create_project(tx, "between"))
        assert [each.name for each in await store.read(key_sql.projects)] == ["before", "between"]
        assert await store.read_small(lambda view: len(key_sql.projects(view))) == 2

        def write(tx: Tx) -> None:
            key_sql.create_project(tx, "meanwhile")
            _end_sessions(address)
            key_sql.create_project(tx, "and more")

        def read(view: View) -> list[key_sql.ProjectRecord]:
            _end_sessions(address)
            return key_sql.projects(view)

        with pytest.raises(StoreError, match="cannot be reached"):
            await store.write(write)
        troubles = [store.trouble]
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.read(read)
        assert [each.name for each in await store.read(key_sql.projects)] == ["before", "between"]
        troubles.append(store.trouble)
        assert [each is None for each in troubles] == [False, True], "a read shows that the server is there"
        await store.write(lambda tx: key_sql.create_project(tx, "after"))


async def test_a_commit_whose_answer_is_lost_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not say that nothing was changed, and names what makes a second try safe."""
    address = database(tmp_path)
    async with Store(address, Context()) as store:
        real = PostgresConnection.commit_with

        def commit_with(self: PostgresConnection, then: Sequence[Callable[[View], object]] = ()) -> None:
            _end_sessions(address)
            real(self, then)

        with monkeypatch.context() as patch:
            patch.setattr(PostgresConnection, "commit_with", commit_with)
            with pytest.raises(StoreError, match=r"not known whether .* the same Idempotency-Key") as caught:
                await store.write(lambda tx: key_sql.create_project(tx, "perhaps"))
    assert "Nothing was changed" not in caught.value.message


def _end_sessions(address: PostgresAddress) -> None:
    sessions(address, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity")


def test_a_registry_of_a_newer_gateway_is_refused(tmp_path: Path) -> None:
    """And nothing is changed; the message names both versions' remedy."""
    address = database(tmp_path)
    with closing(open_registry(address)) as connection:
        connection.execute(f"INSERT INTO {STEP_TABLE} (name) VALUES ('p999_later')")  # noqa: S608 - a constant
    with pytest.raises(StoreError, match=r"newer gateway \(it has p999_later\).*Install the newer version"):
        open_database(address)


async def test_a_schema_that_another_gateway_changed_stops_all_writes(tmp_path: Path) -> None:
    """A gateway whose registry was migrated beneath it writes nothing more."""
    address = database(tmp_path)
    async with Store(address, Context()) as store:
        await store.write(lambda tx: key_sql.create_project(tx, "before"))
        with closing(open_registry(address)) as connection:
            connection.execute(f"INSERT INTO {STEP_TABLE} (name) VALUES ('p999_later')")  # noqa: S608 - a constant
        with pytest.raises(StoreError, match="A newer version has migrated the registry"):
            await store.write(lambda tx: key_sql.create_project(tx, "after"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://gateway@db/registry", "should be postgresql://"),
        ("postgresql:///registry", "names no host"),
        ("postgresql://gateway@db", "names no database"),
        ("postgresql://gateway@db/registry?sslmode=maybe", "unknown sslmode 'maybe'"),
    ],
)
def test_a_wrong_address_is_refused(url: str, problem: str) -> None:
    """The message says what is wrong, and what it should be."""
    with pytest.raises(ValueError, match=problem):
        PostgresAddress.parse(url)


def test_a_password_is_never_shown() -> None:
    """It is kept apart from the URL, and TLS is verified beyond this machine."""
    address = PostgresAddress.parse("postgresql://gateway:s3cret%40@db1,db2:5433/registry?connect_timeout=3")
    assert address.password is not None
    assert address.password.get_secret_value() == "s3cret@"
    assert address.url == "postgresql://gateway@db1,db2:5433/registry?connect_timeout=3&sslmode=verify-full"
    assert "s3cret" not in f"{address} {address!r}"
    assert PostgresAddress.parse("postgresql://gateway@127.0.0.1/r").url.endswith("?sslmode=prefer")


def test_an_unreachable_server_is_named_with_a_remedy(tmp_path: Path) -> None:
    """No server listens on the socket of an empty folder."""
    address = PostgresAddress(f"postgresql://gateway@/registry?host={tmp_path}")
    with pytest.raises(StoreError, match=r"could not be opened .* the setting 'database'"):
        location.open_database(address)


def test_placeholders_become_those_of_the_driver() -> None:
    """A percent sign of the text stays one; a value that occurs twice is numbered."""
    assert translated("a LIKE '%x' AND b = ?") == ("a LIKE '%%x' AND b = %s", False)
    assert translated("a = ?1 OR b = ?1 AND c = ?2") == ("a = %(p1)s OR b = %(p1)s AND c = %(p2)s", True)
    assert psycopg.paramstyle == "pyformat"


def test_posted_statements_are_executed_in_order_with_the_next_one(tmp_path: Path) -> None:
    """Each gets its own result, those with rows too; what is read meanwhile sees them."""
    with closing(PostgresConnection(database(tmp_path))) as connection:
        connection.begin()
        first = connection.post("INSERT INTO meta (key, value) VALUES (?, ?)", ("a", "it's 5 % ?"))
        second = connection.post("INSERT INTO meta (key, value) VALUES ('b', '2'), ('c', '3') RETURNING key")
        third = connection.post("DELETE FROM meta WHERE key = ?1 OR key = ?1", ("b",))
        assert connection.execute("SELECT value FROM meta WHERE key = ?", ("a",)).fetchall() == [("it's 5 % ?",)]
        assert [each.rowcount for each in (first, second, third)] == [1, 2, 1]
        assert [tuple(row) for row in second] == [("b",), ("c",)]
        assert connection.post("UPDATE meta SET value = '4' WHERE key = 'c' RETURNING value").fetchone()[0] == "4"
        connection.execute("ROLLBACK")


def test_a_posted_statement_is_undone_with_its_savepoint(tmp_path: Path) -> None:
    """Whether the server has the savepoint by then or not. What was posted before it stays."""
    with closing(PostgresConnection(database(tmp_path))) as connection:
        for is_sent in (False, True):
            connection.begin()
            connection.post("INSERT INTO meta (key, value) VALUES ('before', '1')")
            connection.post("SAVEPOINT job")
            connection.post("INSERT INTO meta (key, value) VALUES ('within', '1')")
            if is_sent:
                connection.flush()
                connection.post("INSERT INTO meta (key, value) VALUES ('later', '1')")
            connection.execute("ROLLBACK TO job")
            connection.post("RELEASE job")
            found = connection.execute("SELECT key FROM meta WHERE key IN ('before', 'within', 'later')").fetchall()
            assert [row[0] for row in found] == ["before"]
            connection.execute("ROLLBACK")


def test_a_posted_statement_that_fails_is_raised_by_the_next_one_and_undone(tmp_path: Path) -> None:
    """A commit behind it commits nothing."""
    with closing(PostgresConnection(database(tmp_path))) as connection:
        connection.begin()
        connection.post("INSERT INTO meta (key, value) VALUES ('a', '1')")
        connection.post("INSERT INTO meta (key, value) VALUES ('a', '1')")
        with pytest.raises(PostgresError, match="duplicate key"):
            connection.execute("COMMIT")
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT key FROM meta WHERE key = 'a'").fetchall() == []


def test_a_read_starts_no_parallel_workers_and_compiles_nothing(tmp_path: Path) -> None:
    """The planner takes a page of a large fleet for a long query."""
    with closing(open_registry(database(tmp_path))) as connection:
        connection.begin_read()
        shown = [
            connection.execute(f"SHOW {name}").fetchall()[0][0] for name in ("max_parallel_workers_per_gather", "jit")
        ]
        connection.end_read()
    assert shown == ["0", "off"]


async def test_a_batch_that_asks_whether_to_stop_has_done_its_changes(tmp_path: Path) -> None:
    """Otherwise a batch never saw an urgent write, and all its changes went out at its end."""
    asked = []

    def fail_twice(batch: Batch) -> None:
        batch.tx.run("INSERT INTO meta (key, value) VALUES ('a', '1'), ('a', '2')")
        batch.should_stop()
        asked.append("it goes on")

    async with Store(database(tmp_path), Context()) as store:
        with pytest.raises(PostgresError, match="duplicate key"):
            await store.write_batch(fail_twice)
    assert asked == []
