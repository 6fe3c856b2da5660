"""The history of a device costs the same beside 20 times as many heartbeats: in steps of SQLite, not in time."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench import large
from bench.registry import prepare
from gateway.store import View, binding_history_sql, binding_sql, heartbeat_sql
from gateway.store import open_database as open_registry
from gateway.store.heartbeat_sql import Period
from gateway.store.sqlite.connection import SqliteConnection

pytestmark = pytest.mark.sqlite
"""SQLite counts its steps."""

SMALL, LARGE = 200, 4_000
EACH = 5
MOST = 1.5
ALL_TIME = Period(0, 2**60)
Call = Callable[[View, str], int]


def read(view: View, device_id: str) -> int:
    """Read a page of the history; return how many heartbeats it has."""
    pk = view.value("SELECT pk FROM devices WHERE id = ?", device_id)
    return len(heartbeat_sql.page(view, pk, ALL_TIME, after=None, limit=26, every=None))


def read_binding(view: View, device_id: str) -> int:
    """Read that of the end user's binding."""
    device = view.one("SELECT * FROM devices WHERE id = ?", device_id)
    assert device is not None
    (binding,) = binding_sql.of_person(view, device["project_id"], device["end_user_id"])
    return len(binding_history_sql.page(view, binding, after=None, limit=26))


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[SqliteConnection, str]]]:
    """A small one and a large one, each with the id of a device."""
    made = [
        large.fill(prepare(tmp_path_factory.mktemp("registry") / "data", 0), size, members=1, history=EACH).registry
        for size in (SMALL, LARGE)
    ]
    with closing(_open(made[0].data_dir)) as small, closing(_open(made[1].data_dir)) as many:
        yield [(small, made[0].devices[0][0]), (many, made[1].devices[0][0])]


def _open(data_dir: Path) -> SqliteConnection:
    connection = open_registry(data_dir)
    assert isinstance(connection, SqliteConnection)
    return connection


def steps(connection: SqliteConnection, call: Call, device_id: str) -> int:
    """Return the steps of a call, which reads every heartbeat of the device."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    connection.set_progress_handler(count, 1)
    assert call(View(connection), device_id) == EACH
    connection.set_progress_handler(None, 0)
    return counted


@pytest.mark.parametrize("call", [read, read_binding])
@pytest.mark.parametrize("analyze", [False, True], ids=["", "with statistics"])
def test_a_history_costs_the_same_beside_many_others(
    registries: list[tuple[SqliteConnection, str]], call: Call, *, analyze: bool
) -> None:
    """Also after another program has run ANALYZE: SQLite would read the whole table, for a Bloom filter."""
    for connection, _ in registries:
        connection.execute("ANALYZE" if analyze else "SELECT 1")
    small, many = (steps(connection, call, device_id) for connection, device_id in registries)
    assert many <= MOST * small, (small, many)
