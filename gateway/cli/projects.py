"""``gateway projects``: in the data directory itself, whether or not a gateway runs on it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import output
from gateway.cli.keys import name_of, on_registry
from gateway.cli.options import SettingsCommand, with_settings
from gateway.cli.suggestions import again
from gateway.domain import administration
from gateway.settings import registry
from gateway.store import Tx, View, key_sql, open_existing
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded


@click.group(name="projects", epilog="\b\nExample:\n  gateway projects create 'Clinic North'")
def projects_group() -> None:
    """Make and list projects.

    Each has its own devices and keys, and sees no other's.
    """


@projects_group.command(
    cls=SettingsCommand,
    name="create",
    epilog="\b\nExample:\n  gateway projects create 'Clinic North'",
)
@click.argument("name", callback=name_of("project"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def create(loaded: Loaded, *, name: str, as_json: bool) -> None:
    """Make a project."""

    def write(tx: Tx) -> key_sql.ProjectRecord:
        project_id = administration.create_project(tx, name, CLI)
        return key_sql.require_project(tx, project_id)

    facts = _facts(on_registry(loaded.settings.registry, write))
    if as_json:
        output.as_json(facts)
    else:
        click.echo(facts["id"])
        output.note(f"Make a key for it: {again('keys', 'create', '--name', 'NAME', '--project', facts['id'])}")


@projects_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway projects list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_projects(loaded: Loaded, *, as_json: bool) -> None:
    """List the projects, the oldest first."""
    with closing(open_existing(loaded.settings.registry)) as connection:
        rows = [_facts(row) for row in key_sql.projects(View(connection))]
    if as_json:
        output.as_json(rows)
    else:
        output.table(("ID", "NAME", "CREATED"), ((each["id"], each["name"], each["created_at"]) for each in rows))


def _facts(row: key_sql.ProjectRecord) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "created_at": moment(row.created_at)}
