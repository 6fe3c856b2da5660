"""Both engines have the same tables: columns, indexes and triggers, and the rules that hold for their rows."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from gateway.store.engine import DatabaseConnection
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import STEP_TABLE
from gateway.store.sqlite.engine import SqliteEngine
from tests.support.postgres import database

ENGINE_TABLES = {
    *("_sqlite_migrations", "sqlite_sequence", STEP_TABLE, "event_counter"),
    *(
        f"device_search{which}{part}"
        for which in ("", "_end_users")
        for part in ("", "_data", "_idx", "_docsize", "_config")
    ),
}
"""Tables that one engine alone has: its own book-keeping, numbers of events, the index of texts."""
ENGINE_INDEXES = {"idx__sqlite_migrations_migration_set_name", "devices_by_text"}
FAMILIES = {
    **dict.fromkeys(("integer", "bigint", "smallint"), "integer"),
    **dict.fromkeys(("blob", "bytea"), "bytes"),
    **dict.fromkeys(("any", "double precision", "numeric"), "number"),
    "text": "text",
}
"""A number that a device reports may be whole or not: ANY on SQLite."""
OF_TABLE = "n.nspname = 'public' AND t.relkind IN ('r', 'p') AND t.oid NOT IN (SELECT inhrelid FROM pg_inherits)"
INDEXES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": """SELECT regexp_replace(c.relname, '^heartbeats_[0-9]+_', 'heartbeats_')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'i' AND n.nspname = 'public'
        AND c.relname NOT IN (SELECT conname FROM pg_constraint)""",
}
FACTS: dict[str, dict[str, str]] = {
    "columns": {
        "sqlite": """SELECT m.name, c.name, lower(c.type) FROM sqlite_master m JOIN pragma_table_info(m.name) c
            WHERE m.type = 'table'""",
        "postgresql": f"""SELECT t.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a
            JOIN pg_class t ON t.oid = a.attrelid JOIN pg_namespace n ON n.oid = t.relnamespace
            WHERE {OF_TABLE} AND a.attnum > 0 AND NOT a.attisdropped""",  # noqa: S608 - our own words
    },
    "primary keys": {
        "sqlite": """SELECT m.name, c.pk, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
            WHERE m.type = 'table' AND c.pk > 0""",
        "postgresql": f"""SELECT t.relname, k.place, a.attname FROM pg_constraint c
            JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
            CROSS JOIN unnest(c.conkey) WITH ORDINALITY k (number, place)
            JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
            WHERE {OF_TABLE} AND c.contype = 'p'""",  # noqa: S608 - our own words
    },
    "columns that may be null": {  # but for those of a primary key, which SQLite does not mark
        "sqlite": """SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
            WHERE m.type = 'table' AND NOT c."notnull" AND c.pk = 0""",
        "postgresql": f"""SELECT t.relname, a.attname FROM pg_attribute a
            JOIN pg_class t ON t.oid = a.attrelid JOIN pg_namespace n ON n.oid = t.relnamespace
            WHERE {OF_TABLE} AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attnotnull""",  # noqa: S608 - our own words
    },
    "triggers": {
        "sqlite": "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal",
    },
    "foreign keys": {
        "sqlite": """SELECT m.name, f."from", f."table", coalesce(f."to", '?'), lower(f.on_delete) FROM sqlite_master m
            JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'""",
        "postgresql": f"""SELECT t.relname, a.attname, o.relname, b.attname,
                CASE c.confdeltype WHEN 'c' THEN 'cascade' WHEN 'a' THEN 'no action' ELSE c.confdeltype::text END
            FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
            JOIN pg_class o ON o.oid = c.confrelid
            JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey)
            JOIN pg_attribute b ON b.attrelid = o.oid AND b.attnum = ANY (c.confkey)
            WHERE {OF_TABLE} AND c.contype = 'f'""",  # noqa: S608 - our own words
    },
}
UNIQUE = {
    "sqlite": """SELECT m.name, i.name, i.partial, coalesce(c.name, '?') FROM sqlite_master m
        JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c
        WHERE m.type = 'table' AND i."unique" AND i.origin <> 'pk' ORDER BY m.name, i.name, c.seqno""",
    "postgresql": f"""SELECT t.relname, i.indexrelid, (i.indpred IS NOT NULL)::int, coalesce(a.attname, '?')
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
        WHERE {OF_TABLE} AND (i.indisunique OR i.indisexclusion) AND NOT i.indisprimary
        ORDER BY t.relname, i.indexrelid, k.place""",  # noqa: S608 - our own words
}
UNIQUE_IN_PARTITIONS = ("heartbeats", 1, "sent_at", "device_pk")
"""Of a table with partitions a unique index has to contain what they go by. So on PostgreSQL each partition has this
one, and the domain finds a heartbeat that was sent again on another day."""
CHECKS = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'table'",
    "postgresql": f"""SELECT t.relname, pg_get_constraintdef(c.oid) FROM pg_constraint c
        JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace
        WHERE {OF_TABLE} AND c.contype = 'c'""",  # noqa: S608 - our own words
}
LISTED = {
    "sqlite": re.compile(r"CHECK\s*\(\s*(\w+) IN\s*\(([^)]*)\)\s*\)"),
    "postgresql": re.compile(r"CHECK \(\((\w+) = ANY \(ARRAY\[(.*)\]\)\)\)"),
}
BOUNDED = {
    "sqlite": re.compile(r"CHECK \((\w+) BETWEEN (\d+) AND (\d+)\)"),
    "postgresql": re.compile(r"CHECK \(\(\((\w+) >= (\d+)\) AND \(\w+ <= (\d+)\)\)\)"),
}
Facts = Counter[tuple[Any, ...]]
Both = tuple[DatabaseConnection, DatabaseConnection]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A registry on each engine, as migrations make it."""
    folder = tmp_path_factory.mktemp("registry")
    with closing(SqliteEngine(folder).open()) as here, closing(open_registry(database(folder))) as there:
        yield here, there


def _rows(connection: DatabaseConnection, sql: dict[str, str]) -> list[tuple[Any, ...]]:
    found = (tuple(row) for row in connection.execute(sql[connection.dialect.name]))
    return [row for row in found if row[0] not in ENGINE_TABLES]


def _facts(connection: DatabaseConnection, name: str) -> Facts:
    rows = _rows(connection, FACTS[name])
    return Counter((*row[:2], FAMILIES[row[2]]) for row in rows) if name == "columns" else Counter(rows)


def _unique(connection: DatabaseConnection) -> Facts:
    """Table, whether some rows alone count, and the columns, of each unique index. Its name is the engine's."""
    rows = _rows(connection, UNIQUE)
    grouped = itertools.groupby(rows, key=lambda row: row[:3])
    return Counter((table, partial, *(row[3] for row in of)) for (table, _, partial), of in grouped)


def _checks(connection: DatabaseConnection) -> Facts:
    """Table, column, and the values that it may have, or their bounds."""
    listed, bounded = (each[connection.dialect.name] for each in (LISTED, BOUNDED))
    rows = _rows(connection, CHECKS)
    found: Facts = Counter()
    for table, text in rows:
        found.update((table, *each) for each in bounded.findall(text))
        for column, values in listed.findall(text):
            found[table, column, *sorted(re.findall(r"\w+", re.sub(r"::\w+", "", values)))] += 1
    assert found.total() == sum(text.count("CHECK") for _, text in rows), "a check has another form"
    return found


@pytest.mark.parametrize("name", FACTS)
def test_both_engines_have_the_same(both: Both, name: str) -> None:
    """Table by table."""
    here, there = (_facts(each, name) for each in both)
    assert here == there != Counter()


def test_both_engines_have_the_same_indexes(both: Both) -> None:
    """By their names. What is unique on one engine is so on the other."""
    here, there = ({row[0] for row in _rows(each, INDEXES)} - ENGINE_INDEXES for each in both)
    assert here == there
    here_unique, there_unique = (_unique(each) for each in both)
    assert here_unique - Counter([UNIQUE_IN_PARTITIONS]) == there_unique != Counter()


def test_both_engines_allow_the_same_values(both: Both) -> None:
    """Where a column has a list of them, or bounds."""
    here, there = (_checks(each) for each in both)
    assert here == there != Counter()
