"""The PostgreSQL pair of `broker_config/cells`: commits wait for the copy, and a former primary joins again.

The server of the tests was built without TLS, so this runs the files with their words about TLS taken out.
"""

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pydantic import SecretStr

from gateway.core.postgres_address import PostgresAddress
from gateway.errors import StoreError
from gateway.runtime import postgres_server
from gateway.store import Context, Store
from tests.cluster.support import note, noted
from tests.e2e.program import GUARD_SECONDS, Program, clean_environment, run, started
from tests.support.cells import CELLS, Secrets, make_secrets
from tests.support.ports import free_port
from tests.support.wait import eventually

NODES = ("db1", "db2")
LONG_SECONDS = 4 * GUARD_SECONDS
"""Guard for a copy of a database on a busy machine; no statement about speed."""
_OF_THE_TEST = """
shared_buffers = '16MB'
fsync = off
wal_retrieve_retry_interval = '100ms'
unix_socket_directories = '{folder}'
"""


_TLS = {
    "postgresql.conf": {"ssl = on\n": "", "ssl_min_protocol_version = 'TLSv1.2'\n": ""},
    "database.sh": {
        "hostssl": "host   ",
        "sslmode=verify-full sslrootcert=$secrets/ca.pem": "sslmode=disable",
        " -c ssl=off": "",
        ' -c ssl_cert_file="$secrets/tls.pem" \\\n': "",
        '    -c ssl_key_file="$secrets/tls.pem.key" -c ssl_ca_file="$secrets/ca.pem"\n': "\n",
    },
}


def _without_tls(name: str) -> str:
    """A file of the cells for a server without TLS."""
    text = (CELLS / name).read_text("utf-8")
    for words, instead in _TLS[name].items():
        assert words in text, f"{words} is not in {name}"
        text = text.replace(words, instead)
    return text


def as_server(*command: str) -> tuple[str, ...]:
    """A command as the user of the server: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return command
    user = postgres_server.USER
    return ("setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", *command)


class Node(Program):
    """One server of the pair, started by `database.sh` as its container does."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        line = as_server("sh", str(folder / "database.sh"))
        super().__init__(folder / "logs", name, *line, environment=environment)
        self.environment = environment

    async def command(self, *line: str) -> str:
        """Run a program beside the server; what it says, or nothing when it fails."""
        outcome = await run(*as_server(*line), environment=self.environment)
        return outcome.out.strip() if outcome.code == 0 else ""

    async def ask(self, *statements: str) -> str:
        """Execute statements as the administrator, who comes by the socket."""
        words = [word for each in statements for word in ("--command", each)]
        return await self.command("psql", "--no-psqlrc", "--tuples-only", "--no-align", *words, "postgres")

    async def says(self, statement: str, wanted: str) -> None:
        """Wait until the rows are these."""

        async def there() -> bool:
            return await self.ask(statement) == wanted

        await eventually(there, f"{self.name}: {statement} says {wanted!r}", guard_seconds=LONG_SECONDS)

    async def is_complete(self, standby: str) -> None:
        """Wait until this is the primary, and commits wait for the other node."""
        await self.says("SELECT application_name || ' ' || sync_state FROM pg_stat_replication", f"{standby} sync")


@dataclass
class Pair:
    """Both nodes, the folder of their data, and the registry as gateways name it."""

    db1: Node
    db2: Node
    folder: Path
    where: PostgresAddress


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    """Start both; the first makes the registry, the second copies it."""
    with ExitStack() as folders:
        async with AsyncExitStack() as stack:
            yield await _started(postgres_server.programs(folders), postgres_server.new_folder(folders, "pair-"), stack)


def _prepare(folder: Path) -> Secrets:
    """Write what both nodes read, and give it to the user of the server."""
    secrets = make_secrets(folder / "secrets")
    settings = _without_tls("postgresql.conf") + _OF_THE_TEST.format(folder=folder)
    (folder / "settings.conf").write_text(settings)
    (folder / "database.sh").write_text(_without_tls("database.sh"))
    for name in NODES:
        (folder / name).mkdir()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", postgres_server.USER, folder], check=True)
    return secrets


async def _started(programs: Path, folder: Path, stack: AsyncExitStack) -> Pair:
    secrets, ports = _prepare(folder), {name: free_port() for name in NODES}
    nodes = [Node(name, folder, _environment(name, folder, programs, secrets, ports)) for name in NODES]
    for node in nodes:
        await stack.enter_async_context(started(node))
    hosts = ",".join(f"localhost:{ports[name]}" for name in NODES)
    url = f"postgresql://gateway@{hosts}/registry?sslmode=disable"
    password = SecretStr((secrets.database / "gateway-password").read_text("ascii").strip())
    return Pair(nodes[0], nodes[1], folder, PostgresAddress(url, password))


def _environment(name: str, folder: Path, programs: Path, secrets: Secrets, ports: dict[str, int]) -> dict[str, str]:
    (peer,) = set(NODES) - {name}
    return clean_environment(
        HOME=str(folder),
        NODE=name,
        PEER="localhost",
        FIRST="db1",
        PGDATA=str(folder / name / "registry"),
        PGHOST=str(folder),
        PGPORT=str(ports[name]),
        PEER_PORT=str(ports[peer]),
        SECRETS=str(secrets.database),
        SETTINGS=str(folder / "settings.conf"),
        PATH=f"{programs}:{os.environ.get('PATH', os.defpath)}",
    )


async def _writes(store: Store, value: str) -> None:
    """Wait until the registry takes a write."""

    async def written() -> bool:
        with contextlib.suppress(StoreError, psycopg.Error):
            await note(store, value)
            return True
        return False

    await eventually(written, f"{value!r} is written", guard_seconds=LONG_SECONDS)


async def test_a_lost_primary_loses_nothing() -> None:
    """The primary restarts, then it is lost: the promoted copy has what was written, and the other joins again."""
    async with pair() as made:
        db1, db2 = made.db1, made.db2
        await db1.is_complete("db2")
        async with Store(made.where, Context()) as store:
            await note(store, "before")
            await db1.stop(signal.SIGKILL)
            await db1.start()
            await db1.is_complete("db2")
            await _writes(store, "accepted")

            await db1.stop(signal.SIGKILL)
            await db2.command("pg_ctl", "promote")
            await db2.ask("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")

            async def kept() -> bool:
                with contextlib.suppress(StoreError, psycopg.Error):
                    return await noted(store) == "accepted"
                return False

            await eventually(kept, "the promoted node is asked", guard_seconds=LONG_SECONDS)
            await _writes(store, "alone")

            await db1.start()
            await db2.says("SELECT application_name || ' ' || state FROM pg_stat_replication", "db1 streaming")
            await db2.ask("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            await db2.is_complete("db1")
            await _writes(store, "together")
        assert await db1.ask("SELECT pg_is_in_recovery()") == "t"
        assert len(list((made.folder / "db1").glob("registry.former.*"))) == 1
