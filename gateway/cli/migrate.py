"""``gateway migrate``: a registry moves from SQLite to PostgreSQL."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.core.postgres_address import PostgresAddress
from gateway.core.text import count
from gateway.errors import AlreadyRunningError
from gateway.settings import registry
from gateway.store.location import postgres_engine
from gateway.store.moving import Move, Moved, Plan
from gateway.store.opening import require_registry
from gateway.store.sqlite.lock import exclusive

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

EPILOG: Final = """\b
Examples:
  gateway migrate --to postgresql://gateway@db1,db2/registry --dry-run
  gateway migrate --to postgresql://gateway@db1,db2/registry
  GATEWAY_DATABASE=postgresql://gateway@db1/registry gateway serve

Stop the gateway first. The database must be empty. Every table is compared in the end, by the number of its rows and by
a checksum. An interrupted move goes on where it was when it is started again. The file of SQLite is only read. Keep it
until you trust the new registry, and start no gateway on it.
"""


@click.command(cls=SettingsCommand, epilog=EPILOG)
@click.option("--to", "url", metavar="URL", help="The database to move to.  [default: the setting 'database']")
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and how long it takes; move nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def migrate(loaded: Loaded, *, url: str | None, dry_run: bool, as_json: bool) -> None:
    """Move the registry from SQLite to PostgreSQL.

    While no gateway runs on it.
    """
    data_dir = loaded.settings.data_dir
    engine = postgres_engine(_target(loaded, url))
    require_registry(data_dir)
    try:
        with exclusive(data_dir):
            if dry_run:
                _show_plan(Move(data_dir, engine).plan(), as_json=as_json)
                return
            with click.progressbar(
                length=Move(data_dir, engine).total(), label="rows", file=sys.stderr, hidden=not sys.stderr.isatty()
            ) as bar:
                moved = Move(data_dir, engine, bar.update).run()
    except AlreadyRunningError as error:
        raise AlreadyRunningError(
            f"A gateway runs on the data directory {data_dir}. Stop it, and run this again. Nothing was changed."
        ) from error
    _show(moved, as_json=as_json)


def _target(loaded: Loaded, url: str | None) -> PostgresAddress:
    if url is not None:
        try:
            address = PostgresAddress.parse(url)
        except ValueError as error:
            raise click.BadParameter(f"it {error}", param_hint="--to") from None
        if address.password is not None:
            output.note(
                "warning: other users can read the password in --to: use PGPASSWORD or 'database_password_file'"
            )
        return address
    where = loaded.settings.registry
    if not isinstance(where, PostgresAddress):
        raise click.UsageError("Name the database to move to: --to postgresql://USER@HOST/DATABASE")
    return where


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        output.as_json(asdict(plan))
        return
    output.table(("TABLE", "ROWS"), [(name, str(rows)) for name, rows in plan.tables.items()])
    output.note(f"{count(sum(plan.tables.values()), 'row')}, about {plan.seconds:g} s. Nothing was moved.")


def _show(moved: Moved, *, as_json: bool) -> None:
    facts = {
        "tables": {name: found._asdict() for name, found in moved.tables.items()},
        "replaced": moved.replaced,
        "resumed": moved.resumed,
    }
    if as_json:
        output.as_json(facts)
        return
    rows = [(name, str(found.rows), found.checksum) for name, found in moved.tables.items()]
    output.table(("TABLE", "ROWS", "CHECKSUM"), rows)
    if moved.replaced:
        output.note(f"In {count(moved.replaced, 'row')} a NUL became U+FFFD: PostgreSQL does not store it.")
    output.note("Every table is the same in both. Set 'database', and start the gateway.")
