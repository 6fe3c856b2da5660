"""Gateways that start together on an empty database: the tables are made once, and each of them begins."""

from concurrent.futures import ThreadPoolExecutor

from gateway.core.postgres_address import PostgresAddress
from gateway.store.postgres.engine import open_registry
from gateway.store.postgres.steps import names
from tests.support.postgres import execute, locked, new_database, server
from tests.support.wait import eventually

GATEWAYS = 3


def _opened(at: PostgresAddress) -> set[str]:
    connection = open_registry(at)
    try:
        return connection.applied_steps()
    finally:
        connection.close()


async def test_gateways_that_start_together_make_the_tables_once() -> None:
    """All of them have found no table, and wait for the lock; then one after the other goes on."""
    at = new_database(server(), "started_together")
    waiting = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE locktype = 'advisory' AND NOT granted AND d.datname = %s"""
    with ThreadPoolExecutor(GATEWAYS) as threads:
        with locked(at):
            opened = [threads.submit(_opened, at) for _ in range(GATEWAYS)]
            await eventually(lambda: execute(server(), waiting, at.database) == [(GATEWAYS,)], "all of them wait")
        found = [each.result() for each in opened]
    assert found == [set(names())] * GATEWAYS
