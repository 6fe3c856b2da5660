"""What tests of the store share."""

from collections.abc import Iterator

import pytest

from gateway.runtime.postgres_server import PostgresServer
from tests.support.postgres import execute


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A server with a user who logs in with a password alone, and one who may make nothing."""
    with PostgresServer() as started:
        execute(started, "CREATE ROLE careful LOGIN PASSWORD 'right'")
        execute(started, "CREATE ROLE guest LOGIN")
        access = started.data / "pg_hba.conf"
        access.write_text(f"local all careful scram-sha-256\n{access.read_text()}")
        execute(started, "SELECT pg_reload_conf()")
        yield started
