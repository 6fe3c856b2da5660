"""``gateway secrets``: encryption of signing keys and webhook secrets in the registry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.errors import AlreadyRunningError, ConflictError, UnavailableError
from gateway.runtime.sealing import Vault, vault_of, write_new_key
from gateway.settings import registry
from gateway.store import Context, View, open_existing, secret_sql, transact
from gateway.store.backup import copies_beside
from gateway.store.sqlite.lock import exclusive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.settings.loading import Loaded
    from gateway.store.engine import DatabaseConnection

GROUP_EPILOG: Final = """\b
Examples:
  gateway secrets new-key /etc/gateway/encryption.key     then set encryption_key_file, and restart
  gateway secrets status
  gateway secrets rotate-key /etc/gateway/encryption-2.key

Without the key the registry and its backups are of no use. Keep a copy of it apart from them: 'gateway docs store'.
"""
_FILE: Final = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")


@click.group(name="secrets", epilog=GROUP_EPILOG)
def secrets_group() -> None:
    """Encrypt what signs, in the registry."""


@secrets_group.command(name="new-key", epilog="\b\nExample:\n  gateway secrets new-key /etc/gateway/encryption.key")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
def new_key(*, file: Path, as_json: bool) -> None:
    """Make a file with a new key.

    Readable by its owner alone. The key itself is not shown; its id tells which one it is.
    """
    try:
        made = write_new_key(file)
    except FileExistsError as error:
        raise ConflictError(
            "file_exists", f"{file} is there already, and is not replaced. Name another file."
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"{file} cannot be written ({error.strerror}). Check the path and its rights."
        ) from error
    facts = {"file": str(file.absolute()), "key": made.key_id}
    _print(facts, as_json=as_json)


@secrets_group.command(cls=SettingsCommand, name="status", epilog="\b\nExample:\n  gateway secrets status --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def status(loaded: Loaded, *, as_json: bool) -> None:
    """Say whether secrets are encrypted.

    And whether the key of the setting opens them.
    """
    settings = loaded.settings
    with closing(open_existing(settings.registry)) as connection:
        known = secret_sql.key_id(View(connection))
    given = vault_of(settings.encryption_key_file).key_id
    _print({"encrypted": known is not None, "key": known, "key_of_the_setting": given}, as_json=as_json)


@secrets_group.command(cls=SettingsCommand, name="encrypt", epilog="\b\nExample:\n  gateway secrets encrypt --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def encrypt(loaded: Loaded, *, as_json: bool) -> None:
    """Encrypt under the setting's key.

    While no gateway runs; 'gateway serve' encrypts when it starts, too. This one also rewrites the file, so that
    nothing in the clear is left in it. Older copies and backups keep it.
    """
    vault = vault_of(loaded.settings.encryption_key_file)
    if vault.key_id is None:
        raise click.UsageError("Name the key: --encryption-key-file FILE ('gateway secrets new-key FILE' makes one).")
    _change(loaded, Vault(), vault, as_json=as_json)


@secrets_group.command(
    cls=SettingsCommand, name="rotate-key", epilog="\b\nExample:\n  gateway secrets rotate-key /etc/gateway/new.key"
)
@_FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def rotate_key(loaded: Loaded, *, file: Path, as_json: bool) -> None:
    """Encrypt under the key in FILE.

    While no gateway runs. The setting names the present key. Set it to FILE afterwards. Keep the old key for as long
    as you keep backups that were made under it.
    """
    _change(loaded, vault_of(loaded.settings.encryption_key_file), vault_of(file), as_json=as_json)
    output.note(f"Set encryption_key_file to {file.absolute()} before you start the gateway.")


@secrets_group.command(cls=SettingsCommand, name="decrypt", epilog="\b\nExample:\n  gateway secrets decrypt --yes")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def decrypt(loaded: Loaded, *, yes: bool, as_json: bool) -> None:
    """Leave secrets in the clear.

    While no gateway runs.
    """
    output.confirm("Signing keys and webhook secrets will lie in the clear in the registry.", yes=yes)
    _change(loaded, vault_of(loaded.settings.encryption_key_file), Vault(), as_json=as_json)
    output.note("Take encryption_key_file out of the settings before you start the gateway.")


def _change(loaded: Loaded, before: Vault, after: Vault, *, as_json: bool) -> None:
    data_dir, where = loaded.settings.data_dir, loaded.settings.registry
    try:
        with exclusive(data_dir), closing(open_existing(where)) as connection:
            secret_sql.leave_no_traces(connection)
            number = transact(connection, Context(), lambda tx: secret_sql.reseal(tx, before, after))
            _overwrite(connection)
    except AlreadyRunningError as error:
        raise AlreadyRunningError(
            f"A gateway runs on the data directory {data_dir}. Stop it, and run this again. Nothing was changed."
        ) from error
    _print({"encrypted": after.key_id is not None, "key": after.key_id, "secrets": number}, as_json=as_json)
    older = copies_beside(data_dir) if loaded.settings.database is None else []
    if after.key_id is not None and older:
        output.note(f"Older copies hold secrets as they were: {', '.join(str(each) for each in older)}")


def _overwrite(connection: DatabaseConnection) -> None:
    try:
        secret_sql.write_anew(connection)
    except sqlite3.OperationalError as error:
        output.note(f"warning: the file could not be written anew ({error}): make room and run sqlite3 FILE VACUUM.")
    secret_sql.empty_log(connection)


def _print(facts: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        output.as_json(facts)
    else:
        output.details({name.replace("_", " "): value for name, value in facts.items()})
