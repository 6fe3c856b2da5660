"""Backups of the registry: taken while a gateway serves, checked before they count, restored while none runs.

A copy is one plain file (no write-ahead log beside it), readable by its owner alone.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.core.clock import to_rfc3339
from gateway.core.files import put_in_place, sync
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError, StoreError
from gateway.store import secret_sql
from gateway.store.opening import require_registry
from gateway.store.position_file import note_position
from gateway.store.schema import from_a_newer_gateway, migrate
from gateway.store.sqlite import backup_files
from gateway.store.sqlite.connection import DATABASE_NAME, connect, create_private
from gateway.store.sqlite.lock import LOCK_NAME, alone, exclusive
from gateway.store.transaction import Context, Tx, View, transact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SIDES: Final = ("-wal", "-shm", "-journal")
_CHECKED: Final = "integrity_check(10)"


@dataclass(frozen=True)
class Contents:
    """A summary of a registry, so that a person can tell two apart; ``last_event_at``: RFC 3339."""

    gateway_id: str
    devices: int
    keys: int
    last_event_at: str | None


def contents(file: Path) -> Contents:
    """Check all of the registry in this file, and return its summary.

    Raises:
        NotFoundError: there is no such file.
        InvalidRequestError: it is damaged, no registry, or of a newer gateway.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no file {file}. Check the path.")
    try:
        with closing(connect(file, read_only=True)) as connection:
            return _checked(View(connection), file)
    except (StoreError, sqlite3.Error) as error:
        raise InvalidRequestError(
            f"{file} is no registry that can be read ({error.__cause__ or error}). Use another backup."
        ) from error


def _checked(view: View, file: Path) -> Contents:
    problems = [row[0] for row in view.all(f"PRAGMA {_CHECKED}")]
    if problems != ["ok"] or view.all("PRAGMA foreign_key_check"):
        raise InvalidRequestError(f"{file} is damaged ({problems[0]}). Use another backup.")
    if newer := from_a_newer_gateway(view.connection):
        raise InvalidRequestError(
            f"{file} was written by a newer gateway (it has {newer}). Install that version, then restore."
        )
    gateway_id = view.value("SELECT value FROM meta WHERE key = 'gateway_id'")
    if gateway_id is None:
        raise InvalidRequestError(f"{file} is a database, and no gateway's registry. Use a file that 'backup' made.")
    newest = view.value("SELECT max(created_at) FROM events")
    return Contents(
        gateway_id,
        view.value("SELECT count(*) FROM devices WHERE deleted_at IS NULL"),
        view.value("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL"),
        None if newest is None else to_rfc3339(newest),
    )


def backup(
    data_dir: Path, target: Path, *, replace: bool = False, recipients: Sequence[str] = (), mac_key: bytes | None = None
) -> Contents:
    """Write a checked copy of the registry to ``target``, also while a gateway serves; return its summary.

    For ``recipients`` it is encrypted; the plain copy lies in the data directory meanwhile. With ``mac_key`` a MAC of
    the file is written beside it.

    Raises:
        UnavailableError: the package that encrypts is not installed.
        NotFoundError: there is no registry.
        ConflictError: ``target`` exists, and ``replace`` is not set.
        InvalidRequestError: the copy is damaged, so the registry is; ``target`` was not written.
        StoreError: it cannot be written.
    """
    source = require_registry(data_dir)
    if target.is_dir():
        raise ConflictError("is_a_directory", f"{target} is a directory. Name the file to write in it.")
    if target.exists() and not replace:
        raise _already_there(target)
    if target.resolve() == source.resolve():
        raise ConflictError("same_file", f"{target} is the registry itself. Name another file.")
    if recipients:
        backup_files.check_recipients(recipients)
    with _draft(source, source if recipients else target) as draft:
        found = contents(draft)
        if not recipients:
            _finish(draft, target, replace=replace, mac_key=mac_key)
        else:
            with _private(target) as sealed:
                backup_files.encrypt(draft, sealed, recipients)
                _finish(sealed, target, replace=replace, mac_key=mac_key)
    return found


def _finish(draft: Path, target: Path, *, replace: bool, mac_key: bytes | None) -> None:
    """Compute the MAC of the draft, then rename it: others may change a file under its final name."""
    line = None if mac_key is None else backup_files.mac_of(draft, mac_key)
    _put(draft, target, replace=replace)
    if line is not None:
        backup_files.write_mac(target, line)


def _already_there(target: Path) -> ConflictError:
    return ConflictError("file_exists", f"{target} is there already. Name another file, or add --force to replace it.")


@contextmanager
def _draft(source: Path, target: Path) -> Iterator[Path]:
    """Yield a copy beside ``target``, which is removed after the block."""
    with _private(target) as draft:
        _copy(source, draft)
        yield draft


@contextmanager
def _private(target: Path) -> Iterator[Path]:
    """Yield an empty file beside ``target``, readable by its owner alone, which is removed after the block."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        create_private(draft)
        yield draft
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written ({error.strerror}). Check the path, its rights and room."
        ) from error
    finally:
        for side in ("", *_SIDES):
            with suppress(OSError):
                Path(f"{draft}{side}").unlink()


def _copy(source: Path, draft: Path) -> None:
    """Copy all pages in one step, so that writes meanwhile neither get in between nor have to wait."""
    try:
        with closing(connect(source, read_only=True)) as old, closing(sqlite3.connect(draft)) as new:
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(
            f"The registry {source} cannot be copied to {draft.parent} ({error}). Check its rights and room."
        ) from error
    sync(draft)


def _put(draft: Path, target: Path, *, replace: bool) -> None:
    if not replace:
        try:  # a file that appeared meanwhile is not replaced either
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise _already_there(target) from error
    put_in_place(draft, target)


def copies_beside(data_dir: Path) -> list[Path]:
    """Return the copies beside the registry: from before a migration, and those that a restore replaced."""
    return sorted(each for each in data_dir.glob(f"{DATABASE_NAME}.*") if not each.name.endswith(_SIDES))


def restore(data_dir: Path, source: Path, prepare: Callable[[Tx], None], context: Context) -> Path | None:
    """Put a copy in the place of the registry; return where the old registry lies now, if there was one.

    ``prepare`` changes the copy, in one transaction, before it becomes the registry. The directory always holds a
    registry: a gateway that starts would otherwise make a new one. What root puts there gets the owner of the
    directory, so that the service's user can open it.

    Raises:
        AlreadyRunningError: a gateway runs on the data directory.
        NotFoundError, InvalidRequestError: ``source`` is missing, or not good.
        StoreError: the directory cannot be written, or another program has the registry open.
        UnavailableError: the copy's secrets are encrypted under another key than that of ``context``.
    """
    contents(source)
    with exclusive(data_dir), alone(data_dir):
        file = data_dir / DATABASE_NAME
        if file.exists() and source.resolve() == file.resolve():
            raise ConflictError("same_file", f"{source} is the registry itself. Name the backup to restore.")
        with _draft(source, file) as draft:
            contents(draft)
            _prepare(draft, prepare, context)
            _give_away(data_dir, draft, data_dir / LOCK_NAME)
            aside = _set_aside(file) if file.exists() else None
            put_in_place(draft, file)
            _note(data_dir, file)
    return aside


def _prepare(draft: Path, prepare: Callable[[Tx], None], context: Context) -> None:
    """Migrate the tables, so that ``prepare`` can change them, and leave one plain file."""
    try:
        with closing(connect(draft)) as connection:
            migrate(connection)
            secret_sql.leave_no_traces(connection)
            transact(connection, context, secret_sql.settle)
            transact(connection, context, prepare)
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise StoreError(f"The copy {draft} cannot be changed ({error}). Check the room on its disk.") from error
    sync(draft)


def _note(data_dir: Path, file: Path) -> None:
    """Write the position file for this registry. If interrupted before, the next start notices the difference."""
    with closing(connect(file, read_only=True)) as connection:
        note_position(data_dir, View(connection))


def _give_away(data_dir: Path, *files: Path) -> None:
    """Give what root has made to the owner of the directory, who may have put a link there meanwhile.

    Other users give nothing away.
    """
    if os.geteuid() == 0:
        owner = data_dir.stat()
        for file in files:
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _set_aside(file: Path) -> Path:
    """Give the old registry a second name, with all that its log holds. The log must not meet the new registry."""
    stamp = to_rfc3339(int(file.stat().st_mtime * 1000)).replace(":", "").replace("-", "")
    aside = file.with_name(f"{file.name}.{stamp}-{secrets.token_hex(2)}")
    try:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=1)) as connection:
            left = connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise _in_use(file) from error
        left = "damaged"
    if left == "wal":
        raise _in_use(file)
    for side in _SIDES:  # only a damaged one still has them
        with suppress(FileNotFoundError):
            Path(f"{file}{side}").rename(f"{aside}{side}")
    os.link(file, aside)
    return aside


def _in_use(file: Path) -> StoreError:
    return StoreError(
        f"Another program has {file} open ('gateway' itself, or sqlite3). Nothing was changed. Try again when it ends."
    )
