"""A PostgreSQL for tests: one server per process, a database per registry, made from a template."""

from __future__ import annotations

import atexit
from functools import cache
from hashlib import blake2s
from pathlib import Path

import psycopg

import gateway.store
from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer
from gateway.store import location
from gateway.store.engine import Engine
from gateway.store.postgres.engine import open_registry

TEMPLATE = "registry"


@cache
def server() -> PostgresServer:
    """The server of this process, with a template of a registry."""
    started = PostgresServer("max_connections=200").__enter__()
    atexit.register(started.__exit__, None, None, None)
    execute(started, f"CREATE DATABASE {TEMPLATE}")
    open_registry(started.address(TEMPLATE)).close()
    return started


def database(of: Path) -> PostgresAddress:
    """Return the registry that stands for this data directory; a new one has every table and no row."""
    name = f"r_{blake2s(str(of).encode(), digest_size=12).hexdigest()}"
    if not execute(server(), "SELECT 1 FROM pg_database WHERE datname = %s", name):
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
