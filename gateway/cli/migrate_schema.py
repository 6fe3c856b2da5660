"""``gateway migrate-schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.errors import AlreadyRunningError
from gateway.runtime import log
from gateway.settings import registry
from gateway.store import schema
from gateway.store.location import migrate_database
from gateway.store.opening import migrate_registry, require_registry
from gateway.store.sqlite.lock import exclusive

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

EPILOG: Final = """\b
Examples:
  gateway migrate-schema
  gateway backup /backup/before.db && gateway migrate-schema --no-copy

Stop the gateway first. 'gateway serve' does the same when it starts, so this is for who wants to see it done before.
Of a database on PostgreSQL no copy is made: back it up with the server's tools first ('gateway docs scaling').
The copy lies in the data directory; the newest three are kept. 'gateway docs upgrading' says how to go back.
"""


@click.command(cls=SettingsCommand, name="migrate-schema", epilog=EPILOG)
@click.option("--copy/--no-copy", "with_copy", default=True, show_default=True, help="Copy the registry before.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "log_level", "log_format")
def migrate_schema(loaded: Loaded, *, with_copy: bool, as_json: bool) -> None:
    """Migrate the registry while no gateway runs.

    To the schema of this version, after a copy.
    """
    settings = loaded.settings
    log.configure(settings.log_level, settings.log_format)
    if settings.database is not None:
        before, after = migrate_database(settings.registry)
        _show({"from": before, "to": after, "copy": None}, as_json=as_json)
        return
    require_registry(settings.data_dir)
    try:
        with exclusive(settings.data_dir):
            done = migrate_registry(settings.data_dir, with_copy=with_copy)
    except AlreadyRunningError as error:
        raise AlreadyRunningError(
            f"A gateway runs on the data directory {settings.data_dir}. Restart it with this version, which migrates "
            "the registry, or stop it and run this again. Nothing was changed."
        ) from error
    before, copy = (done.before, done.copy) if done else (schema.steps()[-1], None)
    facts = {"from": before, "to": schema.steps()[-1], "copy": None if copy is None else str(copy)}
    _show(facts, as_json=as_json)


def _show(facts: dict[str, str | None], *, as_json: bool) -> None:
    if as_json:
        output.as_json(facts)
    else:
        output.details(facts)
