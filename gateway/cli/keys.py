"""``gateway keys``: API keys, made and listed in the data directory itself, whether or not a gateway runs on it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from gateway.cli.options import SettingsCommand, with_settings
from gateway.credentials import SCOPES
from gateway.first_start import first_start
from gateway.store import Context, Row, View, keys, open_database, transact
from gateway.store.devices import moment

if TYPE_CHECKING:
    from gateway.settings import Loaded

CREATE_EPILOG = """\b
Examples:
  gateway keys create --name backend
  gateway keys create --name dashboard --scope devices:read
  KEY=$(gateway keys create --name ci --test --json | jq -r .key)

The key is shown this once; the registry keeps only its hash. Without --scope it may do everything.
"""


@click.group(name="keys", epilog="\b\nExample:\n  gateway keys create --name backend")
def keys_group() -> None:
    """Make and list API keys."""


@keys_group.command(cls=SettingsCommand, name="create", epilog=CREATE_EPILOG)
@click.option("--name", required=True, help="What the key is for; shown in lists and in the audit trail.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Allow only this; may be repeated.")
@click.option("--test", is_flag=True, help="Mark it as a key for tests (sk_test_…, rk_test_…).")
@click.option("--project", "project_id", help="Id of its project; none: the first one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def create(
    loaded: Loaded, *, name: str, scopes: tuple[str, ...], test: bool, project_id: str | None, as_json: bool
) -> None:
    """Make an API key and show it once."""
    _, first_project = first_start(loaded.settings)
    project = project_id or first_project
    with closing(open_database(loaded.settings.data_dir)) as connection:
        key_id, secret = transact(
            connection, Context(), lambda tx: keys.create(tx, project, name, scopes=scopes, test=test)
        )
    if as_json:
        facts = {"id": key_id, "name": name, "project_id": project, "scopes": scopes or SCOPES, "key": secret}
        click.echo(json.dumps(facts))
        return
    click.echo(secret)
    click.echo(f"This is {key_id}, named '{name}'. Keep the key now: it is not shown again.", err=True)


@keys_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway keys list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def list_keys(loaded: Loaded, *, as_json: bool) -> None:
    """List the API keys.

    Their names, scopes and last use; never the keys themselves, which are not kept."""
    with closing(open_database(loaded.settings.data_dir)) as connection:
        rows = [_facts(row) for row in keys.all_keys(View(connection))]
    if as_json:
        click.echo(json.dumps(rows))
    else:
        Console().print(_table(rows))


def _facts(row: Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "name": row["name"],
        "project": row["project"],
        "project_id": row["project_id"],
        "starts_with": row["hint"],
        "scopes": json.loads(row["scopes"]),
        "created_at": moment(row["created_at"]),
        "last_used_at": moment(row["last_used_at"]),
        "revoked_at": moment(row["revoked_at"]),
    }


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "NAME", "PROJECT", "KEY", "SCOPES", "LAST USED"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        scopes = row["scopes"]
        assert isinstance(scopes, list)
        shown = "all" if len(scopes) == len(SCOPES) else " ".join(scopes)
        used = str(row["last_used_at"] or "never")
        table.add_row(str(row["id"]), str(row["name"]), str(row["project"]), f"{row['starts_with']}…", shown, used)
    return table
