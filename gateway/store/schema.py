"""Schema version of a registry: which steps were applied, and applying those that are missing.

The steps are in ``gateway/store/migrations``. Each is applied once, in a transaction that also records it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.store.migrations import STEPS

if TYPE_CHECKING:
    import sqlite3

_SET: Final = "gateway"


def steps() -> list[str]:
    """Return the names of all steps, in order."""
    return [each.__name__ for each in STEPS]


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Apply the missing steps, in order; return their names."""
    wanting = missing(connection)
    if wanting:
        apply(connection)
    return wanting


def missing(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the missing steps, in order."""
    applied = _applied(connection)
    return [name for name in steps() if name not in applied]


def newest_applied(connection: sqlite3.Connection) -> str | None:
    """Return the last applied step, or None for an empty database."""
    return max(_applied(connection), default=None)


def apply(connection: sqlite3.Connection, stop_before: str | None = None) -> None:
    """Apply missing steps, all of them or up to one, each in a transaction that also records it."""
    from sqlite_utils import Database  # noqa: PLC0415 - 2 MB, which only the first start of a version needs
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415 - the same

    migrations = Migrations(_SET)
    for each in STEPS:
        migrations()(each)
    migrations.apply(Database(connection), stop_before=stop_before)


def from_a_newer_gateway(connection: sqlite3.Connection) -> str | None:
    """Return the last applied step that this program does not know, or None."""
    return max(_applied(connection) - set(steps()), default=None)


class SchemaWatch:
    """Notices that another program has migrated the registry."""

    def __init__(self) -> None:
        self._known: int | None = None

    def newer(self, connection: sqlite3.Connection, data_version: int) -> str | None:
        """Return the step that this program does not know, if one was applied by now.

        While ``data_version`` (the pragma) stays the same, no other connection has committed anything.
        """
        if data_version == self._known:
            return None
        found = from_a_newer_gateway(connection)
        if found is None:
            self._known = data_version
        return found


def _applied(connection: sqlite3.Connection) -> set[str]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return set()
    rows = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (_SET,))
    return {row[0] for row in rows}
