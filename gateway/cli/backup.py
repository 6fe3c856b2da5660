"""``gateway backup`` and ``gateway restore``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway import restoring
from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.errors import AlreadyRunningError
from gateway.store import DATABASE_NAME
from gateway.store import backup as registry
from gateway.wording import count

if TYPE_CHECKING:
    from gateway.settings import Loaded

BACKUP_EPILOG: Final = """\b
Examples:
  gateway backup /backup/gateway-$(date +%F).db
  gateway backup /backup/gateway.db --force --json

The copy holds the keys that sign commands: keep it as safe as the registry. It is checked before it gets its name.
"""
RESTORE_EPILOG: Final = """\b
Example:
  gateway restore /backup/gateway.db

Stop the gateway first. The old registry is kept beside the new one. Done by root, the new one belongs to the owner of
the data directory. What was bound or reset after the backup was made is unknown then: such devices have to be bound
again. A restore begins a new epoch: new bindings get a new signing key and higher generations, so that no command from
before the restore is obeyed under them. Devices that the backup knows as bound go on as they are.
"""


@click.command(cls=SettingsCommand, epilog=BACKUP_EPILOG)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def backup(loaded: Loaded, *, file: Path, force: bool, as_json: bool) -> None:
    """Copy the registry, also while it serves."""
    found = registry.backup(loaded.settings.data_dir, file, replace=force)
    facts = {"file": str(file.absolute()), "bytes": file.stat().st_size, **asdict(found)}
    if as_json:
        output.as_json(facts)
    else:
        output.details(facts)


@click.command(cls=SettingsCommand, epilog=RESTORE_EPILOG)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def restore(loaded: Loaded, *, file: Path, yes: bool, as_json: bool) -> None:
    """Put a copy in the place of the registry.

    While no gateway runs on it. The copy is checked first, the old registry is kept beside it.
    """
    data_dir = loaded.settings.data_dir
    found = registry.contents(file)
    devices = count(found.devices, "device")
    facts = f"{devices}, last event {found.last_event_at or 'never'}, gateway {found.gateway_id}"
    output.confirm(f"The registry {data_dir / DATABASE_NAME} will be replaced by {file} ({facts}).", yes=yes)
    new_directory = not data_dir.exists()
    try:
        restored = restoring.restore(data_dir, file)
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
    }
    if as_json:
        output.as_json(facts_after)
    else:
        output.details({name.replace("_", " "): value for name, value in facts_after.items()})
    if new_directory and os.geteuid() == 0:
        output.note(
            f"{data_dir} was made, and belongs to root. Give it to the gateway's user: chown -R USER {data_dir}"
        )
