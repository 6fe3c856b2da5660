"""Schema version of a registry: which steps were applied, and applying those that are missing.

The steps are in ``gateway/store/migrations``. Each is applied once, in a transaction that also records it.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from gateway.store.migrations import STEPS

if TYPE_CHECKING:
    from gateway.store.engine import DatabaseConnection

SET: Final = "gateway"


def steps() -> list[str]:
    """Return the names of all steps of SQLite, in order."""
    return [each.__name__ for each in STEPS]


def migrate(connection: DatabaseConnection) -> list[str]:
    """Apply the missing steps, in order; return their names."""
    wanting = missing(connection)
    if wanting:
        apply(connection)
    return wanting


def missing(connection: DatabaseConnection) -> list[str]:
    """Return the names of the missing steps, in order."""
    applied = connection.applied_steps()
    return [name for name in connection.known_steps() if name not in applied]


def newest_applied(connection: DatabaseConnection) -> str | None:
    """Return the last applied step, or None for an empty database."""
    return max(connection.applied_steps(), default=None)


def apply(connection: DatabaseConnection, stop_before: str | None = None) -> None:
    """Apply missing steps, all of them or up to one, each in a transaction that also records it."""
    from sqlite_utils import Database  # noqa: PLC0415 - 2 MB, which only the first start of a version needs
    from sqlite_utils.migrations import Migrations  # noqa: PLC0415 - the same

    migrations = Migrations(SET)
    for each in STEPS:
        migrations()(each)
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError("these steps are those of SQLite")
    migrations.apply(Database(connection), stop_before=stop_before)


def from_a_newer_gateway(connection: DatabaseConnection) -> str | None:
    """Return the last applied step that this program does not know, or None."""
    return max(connection.applied_steps() - set(connection.known_steps()), default=None)
