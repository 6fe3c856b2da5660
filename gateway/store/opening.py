"""Opening of the registry. A new one is made; an old one is migrated only by the gateway that will serve it.

A command that migrated the registry under a running gateway of an older version would leave that gateway with unknown
tables. So a command opens a registry of its own schema and refuses any other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from gateway import __version__
from gateway.core.clock import system_clock, to_rfc3339
from gateway.core.files import put_in_place
from gateway.errors import NotFoundError, StoreError
from gateway.runtime import endpoint_file
from gateway.store import schema
from gateway.store.errors import OPENED, store_error
from gateway.store.sqlite.connection import DATABASE_NAME, SqliteConnection, connect, create_private
from gateway.store.sqlite.lock import UNKNOWN_PROCESS, alone, holder

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

COPIES_KEPT: Final = 3
"""Number of copies kept from before migrations; beyond that the oldest is deleted."""
_COPIES: Final = f"{DATABASE_NAME}.m[0-9][0-9][0-9]_*"
_ROOM: Final = 2
"""Room for the copy, and as much again for tables that a step rewrites."""
_MIB: Final = 2**20


@dataclass(frozen=True)
class Migration:
    """A registry was migrated from the schema ``before`` to that of this version; ``copy`` is from before that."""

    before: str
    after: str
    copy: Path | None


def require_registry(data_dir: Path) -> Path:
    """Return the database file of this data directory.

    Raises:
        NotFoundError: it has none.
    """
    file = data_dir / DATABASE_NAME
    if not file.exists():
        raise NotFoundError(
            f"There is no registry in {data_dir}. Name the gateway's data directory with --data-dir (or "
            "GATEWAY_DATA_DIR); 'gateway serve' makes a new one."
        )
    return file


def open_sqlite(data_dir: Path) -> SqliteConnection:
    """Open the database of this data directory for writing; make a new one if it does not exist.

    Raises:
        StoreError: the directory or the file cannot be used, or the registry has the schema of another version.
    """
    return _open(data_dir, partial(_require_current, data_dir))


def open_sqlite_to_serve(data_dir: Path) -> SqliteConnection:
    """Do the same for a holder of the lock ``exclusive``: an older registry is copied and migrated.

    Raises:
        StoreError: as above, or there is no room for the copy.
    """
    return _open(data_dir, partial(_bring_up, data_dir, with_copy=True))


def migrate_registry(data_dir: Path, *, with_copy: bool) -> Migration | None:
    """Migrate the registry to this version's schema; return None when it has that. The caller holds ``exclusive``.

    Raises:
        StoreError: it cannot be migrated; finished steps stay.
    """
    found: list[Migration | None] = []
    _open(data_dir, lambda database: found.append(_bring_up(data_dir, database, with_copy=with_copy))).close()
    return found[0]


def _open(data_dir: Path, prepare: Callable[[SqliteConnection], object]) -> SqliteConnection:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(data_dir):
            create_private(data_dir / DATABASE_NAME)
            return _prepared(connect(data_dir / DATABASE_NAME), prepare)
    except OSError as error:
        raise store_error(sqlite3.OperationalError(f"{data_dir}: {error.strerror}"), OPENED, again=False) from error


def _prepared(connection: SqliteConnection, prepare: Callable[[SqliteConnection], object]) -> SqliteConnection:
    try:
        prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        raise store_error(error, OPENED, again=False) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _require_current(data_dir: Path, connection: SqliteConnection) -> None:
    _refuse_newer(data_dir, connection)
    if schema.newest_applied(connection) is None:
        schema.migrate(connection)  # a new registry
    elif schema.missing(connection):
        raise StoreError(
            f"The registry in {data_dir} has the schema {schema.newest_applied(connection)}, older than the "
            f"{schema.steps()[-1]} of this gateway {__version__}. Nothing was changed. {_running(data_dir)}"
            "Restart the gateway with this version: it migrates the registry when it starts, after a copy. "
            "'gateway migrate-schema' does the same while no gateway runs ('gateway docs upgrading')."
        )


def _refuse_newer(data_dir: Path, connection: SqliteConnection) -> None:
    newer = schema.from_a_newer_gateway(connection)
    if newer is not None:
        raise StoreError(
            f"The registry was written by a newer gateway (it has {newer}), and this version {__version__} would not "
            f"keep its rules. Nothing was changed. {_running(data_dir)}Install the newer version again, or put a "
            "backup back that was made before ('gateway restore FILE')."
        )


def _running(data_dir: Path) -> str:
    """Return which gateway runs on this registry, as a sentence, or nothing when none does."""
    process, where = holder(data_dir), endpoint_file.read(data_dir)
    if process is None or process == os.getpid():
        return ""
    version = f"gateway {where.version}" if where and where.version else "another version of the gateway"
    number = "" if process == UNKNOWN_PROCESS else f" (process {process})"
    return f"On it runs {version}{number}; the command line of that version works. "


def _bring_up(data_dir: Path, connection: SqliteConnection, *, with_copy: bool) -> Migration | None:
    _refuse_newer(data_dir, connection)
    before = schema.newest_applied(connection)
    if before is None or not schema.missing(connection):
        schema.migrate(connection)
        return None
    began = time.monotonic()
    copy = _copy(data_dir, connection, before) if with_copy else None
    try:
        schema.migrate(connection)
    except BaseException:
        if copy is not None and schema.newest_applied(connection) == before:
            copy.unlink()  # nothing has changed, and a service that restarts again and again must not fill the disk
        raise
    migration = Migration(before, schema.steps()[-1], copy)
    log.info(
        "store.migrated",
        from_schema=migration.before,
        to_schema=migration.after,
        version=__version__,
        copy=None if copy is None else str(copy),
        seconds=round(time.monotonic() - began, 3),
    )
    for each in sorted(data_dir.glob(_COPIES), key=lambda file: file.stat().st_mtime)[:-COPIES_KEPT]:
        each.unlink()
        log.info("store.old_copy_removed", copy=str(each))
    return migration


def _copy(data_dir: Path, connection: SqliteConnection, before: str) -> Path:
    """Copy the registry as it is, durable, readable by its owner alone."""
    size = _size(connection)
    free = shutil.disk_usage(data_dir).free
    if free < _ROOM * size:
        raise StoreError(
            f"Migrating the registry takes {_ROOM * size // _MIB + 1} MiB of free space in {data_dir}, for a copy and "
            f"for new tables; there are {free // _MIB} MiB. Nothing was changed. Free some space and start again, or "
            "make a backup elsewhere ('gateway backup FILE') and migrate without a copy: gateway migrate-schema "
            "--no-copy"
        )
    log.info("store.migrating", from_schema=before, to_schema=schema.steps()[-1], bytes=size)
    stamp = to_rfc3339(system_clock()).replace(":", "").replace("-", "")
    target = data_dir / f"{DATABASE_NAME}.{before}.{stamp}"
    draft = data_dir / f".{target.name}"
    try:
        create_private(draft)
        with closing(sqlite3.connect(draft)) as new:
            connection.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")
        if os.geteuid() == 0:
            owner = data_dir.stat()
            os.chown(draft, owner.st_uid, owner.st_gid, follow_symlinks=False)
        put_in_place(draft, target)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return target


def _size(connection: SqliteConnection) -> int:
    pages, of_bytes = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages) * int(of_bytes)
