"""A registry behind a real PgBouncer in transaction mode: each transaction may come on another session."""

import asyncio
import os
import pwd
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from gateway.core.postgres_address import PostgresAddress
from gateway.errors import UnavailableError
from gateway.runtime import postgres_server
from gateway.store import Context, Store, Tx, key_sql
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.prepared import OFTEN
from tests.cluster.support import ONE, OTHER, note, noted, take
from tests.e2e.program import Program, started
from tests.support.cells import program
from tests.support.ports import free_port
from tests.support.postgres import execute, new_database, server
from tests.support.wait import eventually

POOL = 2
"""Sessions of the server. The gateway has more connections to PgBouncer than that."""
WRITES = 40


@asynccontextmanager
async def pgbouncer(to: PostgresAddress) -> AsyncIterator[tuple[Program, PostgresAddress]]:
    """PgBouncer before this database, and the address through it."""
    with ExitStack() as stack:
        folder, port = postgres_server.new_folder(stack, "bouncer-"), free_port()
        _write(folder, port, to)
        line = (*_as_server(), program("pgbouncer", "pgbouncer"), str(folder / "pgbouncer.ini"))
        bouncer = Program(folder, "pgbouncer", *line)
        async with started(bouncer):
            through = replace(to, url=f"postgresql://gateway@127.0.0.1:{port}/{to.database}?sslmode=disable")
            await eventually(lambda: _answers(through), "PgBouncer answers")
            yield bouncer, through


def _write(folder: Path, port: int, to: PostgresAddress) -> None:
    (folder / "users").write_text('"gateway" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
{to.database} = host={server().folder} port=5432 user=gateway

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = {POOL}
"""
    )
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", postgres_server.USER, folder], check=True)


def _as_server() -> tuple[str, ...]:
    """PgBouncer refuses root, too."""
    if os.geteuid() != 0:
        return ()
    user = postgres_server.USER
    return ("setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups")


def _answers(at: PostgresAddress) -> bool:
    try:
        psycopg.connect(at.url).close()
    except psycopg.OperationalError:
        return False
    return True


def _add(tx: Tx) -> None:
    key_sql.set_meta(tx, "test", str(int(key_sql.meta(tx, "test") or 0) + 1))


async def _add_often(store: Store) -> None:
    for _ in range(WRITES):
        await store.write(_add)


async def test_a_registry_works_through_pgbouncer() -> None:
    """Tables are made, two gateways write at once, and one lease has one owner, on fewer sessions than connections."""
    where = new_database(server(), "bounced")
    async with (
        pgbouncer(where) as (bouncer, through),
        Store(through, Context()) as one,
        Store(through, Context()) as other,
    ):
        await asyncio.gather(_add_often(one), _add_often(other))
        assert await noted(other) == str(2 * WRITES)
        assert await take(one, ONE) is not None
        assert await take(other, OTHER) is None
        with closing(PostgresConnection(through)) as connection:
            names = [list(connection.execute("SELECT name FROM pg_prepared_statements")) for _ in range(2 * OFTEN)]
            assert names == [[]] * len(names)  # on whichever session each of these came

        found = execute(server(), "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", where.database)
        assert found == [(POOL,)]

        await bouncer.kill()
        with pytest.raises(UnavailableError):
            await note(one, "away")
        await bouncer.start()
        await eventually(lambda: _answers(through), "PgBouncer is back")
        await note(one, "back")
        assert await noted(other) == "back"
