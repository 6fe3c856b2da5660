"""``docs/store.md`` tells what lies on disk: every table and every column, and none that is not there."""

import re
from contextlib import closing
from pathlib import Path

import pytest

import gateway
from gateway.store import open_database

STORE = Path(gateway.__file__).parent.parent / "docs" / "store.md"


def _told() -> dict[str, set[str]]:
    """Tables by their headings (`### `name``), columns by the first cell of the rows below."""
    told: dict[str, set[str]] = {}
    for section in re.split(r"(?m)^### ", STORE.read_text(encoding="utf-8"))[1:]:
        heading = re.match(r"`(\w+)`", section)
        if heading:
            told[heading[1]] = set(re.findall(r"(?m)^\| `(\w+)` \|", section))
    return told


@pytest.mark.sqlite  # tests/store/test_postgres.py compares the tables of both engines
def test_every_table_and_column_is_documented(tmp_path: Path) -> None:
    """Undocumented ones and stale ones are named."""
    with closing(open_database(tmp_path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        there = {
            table: {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
            for table in tables
            if not table.startswith(("sqlite_", "device_search_"))  # what SQLite makes for itself
        }
    assert _told() == there


def test_the_threat_model_names_existing_tests() -> None:
    """A sentence there stands or falls with its test, so a renamed file is noticed."""
    tests = Path(__file__).parent.parent
    named = re.findall(r"`(\w+/test_\w+\.py)`", (STORE.parent / "threat-model.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [each for each in named if not (tests / each).is_file()] == []
