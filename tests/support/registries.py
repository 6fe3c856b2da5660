"""A pytest plugin: at the end of every test each registry that it made is whole."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import DATABASE_NAME


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker by which a test says that it damages a registry on purpose."""
    config.addinivalue_line("markers", "damages_registry: the registry that this test leaves is damaged on purpose")


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
