"""``gateway registry``."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.domain import brokers, epoch
from gateway.errors import ConflictError
from gateway.runtime.sealing import vault_of
from gateway.settings import registry
from gateway.store import Context, View, device_count_sql, home_sql, open_existing, transact
from gateway.store.position_file import note_position, read_position

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

EPILOG: Final = """\b
Example:
  gateway registry restored --database postgresql://gateway@db1/registry

Stop all gateways first, restore the database with the tools of the server, run this once, and start them again. New
bindings then get a new signing key and higher generations, so no command from before the restore is obeyed under them.
Devices that the backup knows as bound go on as they are. 'gateway restore' does the same for SQLite by itself.
"""


RECOUNT_EPILOG: Final = """\b
Example:
  gateway registry recount

'gateway doctor' compares the kept counts with the devices. They differ only if another program wrote into the database,
or through a bug. A gateway may run meanwhile; on a registry with a million devices its writes wait for two seconds.
"""


@click.group(name="registry", epilog="\b\nExample:\n  gateway registry restored --yes")
def registry_group() -> None:
    """Care for the registry after accidents.

    Begin a new epoch after the database was restored, count devices again, and remove brokers that are gone.
    """


@registry_group.command(cls=SettingsCommand, name="recount", epilog=RECOUNT_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def recount(loaded: Loaded, *, as_json: bool) -> None:
    """Count the devices of each project again."""
    with closing(open_existing(loaded.settings.registry)) as connection:
        mended = transact(connection, Context(), device_count_sql.recount)
        transact(connection, Context(), home_sql.recount)
        devices = device_count_sql.of_all(View(connection)).total
    facts = {"devices": devices, "mended": mended}
    if as_json:
        output.as_json(facts)
    else:
        output.details({"devices": devices, "projects with wrong counts": ", ".join(mended) or "none"})


FORGET_EPILOG: Final = """\b
Example:
  gateway registry forget-broker brk_b --yes

For a broker that is gone and does not come back. Stop its gateways and the broker first: it would go on accepting
tokens that are revoked later. If it comes back, it joins as a new broker and is compared in full.
"""


@registry_group.command(cls=SettingsCommand, name="forget-broker", epilog=FORGET_EPILOG)
@click.argument("broker_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@with_settings(*registry.NAMES)
def forget_broker(loaded: Loaded, broker_id: str, *, yes: bool) -> None:
    """Remove a broker that is gone.

    It is named by its broker_id. It may have no owner.
    """
    output.confirm(f"All that is known of the broker '{broker_id}' will be deleted.", yes=yes)
    with closing(open_existing(loaded.settings.registry)) as connection:
        transact(connection, Context(), lambda tx: brokers.forget(tx, broker_id))
    output.note(f"The broker '{broker_id}' is forgotten.")


@registry_group.command(cls=SettingsCommand, name="restored", epilog=EPILOG)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def restored(loaded: Loaded, *, yes: bool, as_json: bool) -> None:
    """Begin a new epoch after a restore.

    For a database on PostgreSQL that was restored from a backup.

    Gateways notice a restore by themselves, unless their data directories and the broker are new as well.
    """
    settings = loaded.settings
    if settings.database is None:
        raise ConflictError(
            "registry_on_sqlite",
            f"The registry is the file of SQLite in {settings.data_dir}: 'gateway restore FILE' puts a backup back and "
            "begins a new epoch. Nothing was done.",
        )
    output.confirm(
        f"A new epoch will begin for the registry in {settings.database}. No gateway may run on it.", yes=yes
    )
    with closing(open_existing(settings.registry)) as connection:
        known = epoch.known_by(read_position(settings.data_dir))
        context = Context(vault=vault_of(settings.encryption_key_file))
        began = transact(connection, context, lambda tx: epoch.begin(tx, epoch.RESTORED, known=known))
        if settings.data_dir.is_dir():
            note_position(settings.data_dir, View(connection))
    facts = {"generation": began.base, "signing_key": began.kid, "devices": began.devices}
    if as_json:
        output.as_json(facts)
    else:
        output.details({name.replace("_", " "): value for name, value in facts.items()})
