"""A PostgreSQL for tests: one server per process, a database per registry, made from a template."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import blake2s
from pathlib import Path

import psycopg

import gateway.store
from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import location
from gateway.store.engine import Engine
from gateway.store.postgres.begin import WRITE_LOCK
from gateway.store.postgres.engine import open_registry

TEMPLATE = "registry"


@cache
def server() -> PostgresServer:
    """The server of this process, with a template of a registry.

    Autovacuum would visit each of hundreds of databases once a minute: ten processes a second.
    """
    started = PostgresServer("max_connections=200", "autovacuum=off").__enter__()
    atexit.register(started.__exit__, None, None, None)
    execute(started, f"CREATE DATABASE {TEMPLATE}")
    open_registry(started.address(TEMPLATE)).close()
    return started


@cache
def database(of: Path) -> PostgresAddress:
    """Return the registry that stands for this data directory; a new one has every table and no row."""
    name = f"r_{blake2s(str(of).encode(), digest_size=12).hexdigest()}"
    execute(server(), f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    return server().address(name)


def sessions(of: PostgresAddress, statement: str) -> None:
    """Execute a statement about the sessions of this database, its own session left out."""
    execute(server(), f"{statement} WHERE datname = %s AND pid <> pg_backend_pid()", of.database)


def stand_in() -> None:
    """Let each data directory stand for a separate database: what opens a registry there opens the database."""
    real = location.engine_of

    def engine_of(where: location.Location) -> Engine:
        return real(database(where) if isinstance(where, Path) else where)

    for module in (location, gateway.store):
        setattr(module, "engine_of", engine_of)  # noqa: B010 - the names are imported by value


def execute(at: PostgresServer, statement: str, *values: str) -> list[tuple[object, ...]]:
    """Execute a statement as the administrator of a server."""
    with psycopg.connect(at.address().url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def unreachable(of: PostgresAddress) -> Iterator[None]:
    """Let no session of this database live during the block, and no new one begin."""
    execute(server(), f"ALTER DATABASE {of.database} ALLOW_CONNECTIONS false")
    sessions(of, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity")
    try:
        yield
    finally:
        execute(server(), f"ALTER DATABASE {of.database} ALLOW_CONNECTIONS true")


@contextmanager
def locked(of: PostgresAddress) -> Iterator[None]:
    """Hold the lock of all writes of this registry during the block."""
    with psycopg.connect(of.url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (WRITE_LOCK,))
        yield


def dump(of: PostgresAddress, left_out: Mapping[str, str]) -> list[str]:
    """Return every row of every table, in order, but for one column of each table in ``left_out``."""
    with psycopg.connect(of.url) as connection:
        found = connection.execute(
            """SELECT tablename FROM pg_tables WHERE schemaname = 'public'
                AND tablename NOT IN (SELECT inhrelid::regclass::text FROM pg_inherits) ORDER BY tablename"""
        )
        return [line for (table,) in found.fetchall() for line in _lines(connection, table, left_out.get(table))]


def _lines(connection: psycopg.Connection[tuple[object, ...]], table: str, left_out: str | None) -> Iterator[str]:
    rows = connection.execute(f"SELECT * FROM {table}".encode())  # noqa: S608 - our own tables
    names = [each.name for each in rows.description or ()]
    yield from sorted(
        f"{table} {[value for name, value in zip(names, row, strict=True) if name != left_out]}" for row in rows
    )


def new_database(at: PostgresServer, name: str) -> PostgresAddress:
    """An empty database on this server."""
    execute(at, f"CREATE DATABASE {name}")
    return at.address(name)
