"""A pytest plugin: new registries are copies of one, and at the end of every test each that it made is whole.

The steps of the schema take 25 ms and thirty writes to the disk. They run once per process; a new registry is then a
copy of the file that they made. The tests of ``tests/store`` are about the steps, so there each registry takes them.
Programs that a test starts take them too, unless it gave them such a copy with `place`.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from gateway.store import DATABASE_NAME, opening, schema
from gateway.store.sqlite.connection import connect, create_private

STEPWISE = "tests/store/"
"""Where new registries are made by the steps."""


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker by which a test says that it damages a registry on purpose."""
    config.addinivalue_line("markers", "damages_registry: the registry that this test leaves is damaged on purpose")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Decide how new registries of this test are made."""
    create = create_private if item.nodeid.startswith(STEPWISE) else _create_migrated
    setattr(opening, "create_private", create)  # noqa: B010 - the name is imported by value


def _create_migrated(path: Path) -> None:
    create_private(path)
    if path.name == DATABASE_NAME and not path.stat().st_size:
        path.write_bytes(_migrated())


def place(data: Path) -> None:
    """Make this data directory with a new registry in it, unless it exists.

    Else a gateway takes the steps at its first start: 0.1 s of CPU time with what it imports for them.
    """
    if not data.exists():
        data.mkdir(mode=0o700, parents=True)
        _create_migrated(data / DATABASE_NAME)


@cache
def _migrated() -> bytes:
    """Return the file of a registry that has every table and no row."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / DATABASE_NAME
        create_private(file)
        with closing(connect(file)) as connection:
            schema.migrate(connection)
        return file.read_bytes()


@pytest.fixture(autouse=True)
def _registries_are_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run first, so looked at last: ``integrity_check`` and ``foreign_key_check`` of every registry of the test."""
    folder: Path | None = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is None or request.node.get_closest_marker("damages_registry"):
        return
    faults = {str(path): found for path in folder.rglob(DATABASE_NAME) if (found := _faults(path))}
    assert faults == {}


def _faults(path: Path) -> list[object]:
    """What SQLite finds wrong with this file."""
    if not path.is_file() or not path.stat().st_size:
        return []
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            strangers = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:
            return [str(error)]
    return [*([] if verdict == "ok" else [verdict]), *strangers]
