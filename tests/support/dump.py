"""Everything that a registry holds, as text, for tests that say that nothing changed."""

from collections.abc import Collection

from gateway.store.engine import DatabaseConnection

COUNTERS = ("sqlite_sequence", "event_counter")
"""Tables that count events, one for each engine."""
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%' ORDER BY name",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename",
}


def dump(connection: DatabaseConnection, *, without: Collection[str] = ()) -> list[str]:
    """Return each row of each table, in a fixed order."""
    tables = [row[0] for row in connection.execute(_TABLES[connection.dialect.name]).fetchall()]
    return [
        f"{table} {row}"
        for table in tables
        if table not in without
        for row in sorted(str(tuple(map(_shown, row))) for row in connection.execute(f"SELECT * FROM {table}"))  # noqa: S608 - ours
    ]


def _shown(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
