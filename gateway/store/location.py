"""Location of a registry, and the engine for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

from gateway.core.postgres_address import PostgresAddress
from gateway.errors import StoreError
from gateway.store.sqlite.engine import SqliteEngine

if TYPE_CHECKING:
    from gateway.store.engine import DatabaseConnection, Engine
    from gateway.store.postgres.engine import PostgresEngine
    from gateway.store.sqlite.connection import SqliteConnection

Location: TypeAlias = Path | PostgresAddress
"""The data directory, or the address of a database."""


def engine_of(location: Location) -> Engine:
    """Return the engine of the registry at this location.

    Raises:
        StoreError: it is on PostgreSQL, and the driver is not installed.
    """
    return SqliteEngine(location) if isinstance(location, Path) else postgres_engine(location)


def postgres_engine(address: PostgresAddress) -> PostgresEngine:
    """Return the engine of the registry in this database.

    Raises:
        StoreError: the driver is not installed.
    """
    try:
        from gateway.store.postgres.engine import PostgresEngine  # noqa: PLC0415 - an extra that few install
    except ImportError as error:
        raise StoreError(
            "A registry on PostgreSQL needs the driver psycopg. Install it: pip install 'device-gateway[postgres]'"
        ) from error
    return PostgresEngine(address)


@overload
def open_database(location: Path) -> SqliteConnection: ...
@overload
def open_database(location: PostgresAddress) -> DatabaseConnection: ...
@overload
def open_database(location: Location) -> DatabaseConnection: ...
def open_database(location: Location) -> DatabaseConnection:
    """Open a connection that writes; a missing registry is created.

    Raises:
        StoreError: the registry cannot be used, or has the schema of another version.
    """
    return engine_of(location).open()


@overload
def open_to_serve(location: Path) -> SqliteConnection: ...
@overload
def open_to_serve(location: PostgresAddress) -> DatabaseConnection: ...
@overload
def open_to_serve(location: Location) -> DatabaseConnection: ...
def open_to_serve(location: Location) -> DatabaseConnection:
    """Do the same for the gateway that will serve: an older registry is migrated, on SQLite after a copy.

    Raises:
        StoreError: as above, or there is no room for the copy.
    """
    return engine_of(location).open(to_serve=True)


@overload
def open_existing(location: Path) -> SqliteConnection: ...
@overload
def open_existing(location: PostgresAddress) -> DatabaseConnection: ...
@overload
def open_existing(location: Location) -> DatabaseConnection: ...
def open_existing(location: Location) -> DatabaseConnection:
    """Open a connection that writes to a registry that is there; none is created.

    Raises:
        NotFoundError: it does not exist.
        StoreError: the registry cannot be used, or has the schema of another version.
    """
    return engine_of(location).open_existing()


def migrate_database(location: Location) -> tuple[str, str]:
    """Apply the missing schema steps to a registry on PostgreSQL; return its newest step before and after.

    Raises:
        NotFoundError: it does not exist.
        StoreError: it cannot be used, or a newer gateway has written it.
    """
    if isinstance(location, Path):
        raise TypeError("a registry on SQLite is migrated by migrate_registry")
    return postgres_engine(location).migrate()


def open_reader(location: Location) -> DatabaseConnection:
    """Open a connection that reads what is there, of whichever schema. On PostgreSQL the first statement connects.

    Raises:
        StoreError: the file cannot be opened, or is not a database.
    """
    return engine_of(location).open_reader()
