"""``gateway backup`` and ``gateway restore``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.core.text import count
from gateway.domain import restoring
from gateway.errors import AlreadyRunningError, ConflictError
from gateway.runtime.sealing import read_key, vault_of
from gateway.store import DATABASE_NAME
from gateway.store import backup as registry
from gateway.store.sqlite import backup_files

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded
    from gateway.store.reopened import Reopened

_KINDS: Final = {
    "api_keys": "API key",
    "broker_accounts": "broker account",
    "device_tokens": "token of device",
    "webhooks": "webhook",
}
BACKUP_EPILOG: Final = """\b
Examples:
  gateway backup /backup/gateway-$(date +%F).db
  gateway backup /backup/gateway.db --force --json
  gateway backup /backup/gateway.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p

The copy holds the keys that sign commands: keep it as safe as the registry. It is checked before it gets its name.
"""
RESTORE_EPILOG: Final = """\b
Examples:
  gateway restore /backup/gateway.db
  gateway restore /backup/gateway.db --revoke-keys
  gateway restore /backup/gateway.age --identity age.key

Stop the gateway first. The old registry is kept beside the new one. Done by root, the new one belongs to the owner of
the data directory. What was bound or reset after the backup was made is unknown then: such devices have to be bound
again. A restore begins a new epoch: new bindings get a new signing key and higher generations, so that no command from
before the restore is obeyed under them. Devices that the backup knows as bound go on as they are.
"""


@click.command(cls=SettingsCommand, epilog=BACKUP_EPILOG)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    metavar="AGE1…",
    help="Encrypt for this recipient (age, or a public key of SSH); again for more.",
)
@with_settings("data_dir", "backup_mac_key_file")
def backup(loaded: Loaded, *, file: Path, force: bool, recipients: tuple[str, ...], as_json: bool) -> None:
    """Copy the registry, also while it serves.

    A registry on PostgreSQL is backed up by the tools of the server.
    """
    _require_sqlite(loaded)
    found = registry.backup(
        loaded.settings.data_dir, file, replace=force, recipients=recipients, mac_key=_mac_key(loaded)
    )
    facts = {"file": str(file.absolute()), "bytes": file.stat().st_size, **asdict(found)}
    if as_json:
        output.as_json(facts)
    else:
        output.details(facts)


@click.command(cls=SettingsCommand, epilog=RESTORE_EPILOG)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--revoke-keys",
    "revoke",
    is_flag=False,
    flag_value="reopened",
    default=None,
    type=click.Choice(["reopened", "all"]),
    help="Revoke in the copy what was revoked after it was made, or with =all every API key and broker account.",
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@click.option(
    "--identity", type=click.Path(path_type=Path), metavar="FILE", help="What opens an encrypted backup (age)."
)
@with_settings("data_dir", "encryption_key_file", "backup_mac_key_file")
def restore(
    loaded: Loaded,
    *,
    file: Path,
    identity: Path | None,
    revoke: restoring.Revoke | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Put a copy in the place of the registry.

    While no gateway runs on it. The copy is checked first, the old registry is kept beside it. What was revoked after
    the copy was made is good again: it is listed first, as far as the old registry can be read.
    """
    _require_sqlite(loaded)
    data_dir, mac_key = loaded.settings.data_dir, _mac_key(loaded)
    new_directory = not data_dir.exists()
    if mac_key is None and backup_files.mac_file(file).exists():
        output.note(f"warning: {backup_files.mac_file(file)} was not looked at: set backup_mac_key_file to its key.")
    with backup_files.opened(file, data_dir, identity=identity, mac_key=mac_key) as source:
        _restore(loaded, file, source, revoke, yes=yes, as_json=as_json)
    if new_directory and os.geteuid() == 0:
        output.note(
            f"{data_dir} was made, and belongs to root. Give it to the gateway's user: chown -R USER {data_dir}"
        )


def _require_sqlite(loaded: Loaded) -> None:
    if loaded.settings.database is not None:
        raise ConflictError(
            "registry_on_postgresql",
            f"The registry is in {loaded.settings.database}, and this command copies a file of SQLite. Nothing was "
            "done. Back up and restore the database with pg_dump and pg_restore, or continuously with pgBackRest and "
            "point-in-time recovery ('gateway docs scaling').",
        )


def _mac_key(loaded: Loaded) -> bytes | None:
    file = loaded.settings.backup_mac_key_file
    return None if file is None else read_key(file, "backup_mac_key_file")


def _restore(
    loaded: Loaded, file: Path, source: Path, revoke: restoring.Revoke | None, *, yes: bool, as_json: bool
) -> None:
    """Restore ``source``, the checked and opened form of the named ``file``."""
    data_dir, vault = loaded.settings.data_dir, vault_of(loaded.settings.encryption_key_file)
    found = registry.contents(source)
    devices = count(found.devices, "device")
    facts = f"{devices}, last event {found.last_event_at or 'never'}, gateway {found.gateway_id}"
    reopens = restoring.what_reopens(data_dir, source)
    _tell_what_reopens(reopens, revoke)
    output.confirm(f"The registry {data_dir / DATABASE_NAME} will be replaced by {file} ({facts}).", yes=yes)
    try:
        restored = restoring.restore(data_dir, source, revoke=revoke, vault=vault)
    except AlreadyRunningError as error:
        raise AlreadyRunningError(
            f"A gateway runs on the data directory {data_dir}. Stop it, restore, and start it again. Nothing was "
            "changed."
        ) from error
    aside = restored.old_registry
    facts_after = {
        **asdict(found),
        "old_registry": None if aside is None else str(aside),
        "generation": restored.epoch.base,
        "signing_key": restored.epoch.kid,
        "kept_signing_keys": restored.kept_keys,
        "revoked": restored.revoked,
    }
    if as_json:
        output.as_json({**facts_after, "reopens": None if reopens is None else asdict(reopens)})
    else:
        output.details({name.replace("_", " "): value for name, value in facts_after.items()})


def _tell_what_reopens(reopens: Reopened | None, revoke: restoring.Revoke | None) -> None:
    """Report what is good again with the copy, before anything is done."""
    if reopens is None:
        if revoke != "all":
            output.note(
                "warning: the registry to be replaced is not there or cannot be read, so nobody knows what was revoked "
                "after the backup was made. All of that is good again. --revoke-keys=all revokes every API key and "
                "broker account of the backup."
            )
        return
    if not reopens:
        return
    output.note("warning: this is good in the backup and not in the registry to be replaced:")
    for kind, listed in asdict(reopens).items():
        for each in listed:
            output.note(f"  {_KINDS[kind]} {each['id']} ({output.cell(each['name'])}): {each['why']}")
    if revoke is None:
        output.note("--revoke-keys revokes the keys, accounts and device tokens among it, and ends those bindings.")
