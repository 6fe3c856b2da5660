"""``gateway keys``: API keys, in the data directory itself, whether or not a gateway runs on it.

A gateway that runs looks each key up when it is used: what is done here counts for the very next request.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gateway.bootstrap import first_start
from gateway.cli import output
from gateway.cli.options import SettingsCommand, with_settings
from gateway.cli.param_types import DURATION, EXPIRY, NEVER
from gateway.core.credentials import SCOPES
from gateway.core.visible_text import visible_not_blank
from gateway.domain import administration
from gateway.runtime.sealing import Vault
from gateway.settings import registry
from gateway.store import Context, View, key_sql, open_existing, transact
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI
from gateway.store.sqlite.connection import DATABASE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.settings.loading import Loaded
    from gateway.store import Tx
    from gateway.store.location import Location

T = TypeVar("T")

LONGEST_NAME: Final = 64

CREATE_EPILOG: Final = """\b
Examples:
  gateway keys create --name backend
  gateway keys create --name dashboard --scope devices:read --expires-in 90d
  KEY=$(gateway keys create --name ci --test --json | jq -r .key)

The key is shown this once; the registry keeps only its hash. Without a terminal nothing is asked: without --scope
the key may do everything, and without --expires-in it is good for ever.
"""
GROUP_EPILOG: Final = """\b
Examples:
  gateway keys create --name backend
  gateway keys rotate backend --overlap 24h

KEY is the id of a key, or its name if only one has that.
"""


def name_of(what: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """Return a callback that accepts a name that people can read."""

    def check(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
        wanted = f"should say in 1 to {LONGEST_NAME} printable characters what the {what} is for"
        try:
            kept = visible_not_blank(name)
        except ValueError as error:
            raise click.BadParameter(f"{wanted}. It {error}.") from error
        if len(kept) > LONGEST_NAME:
            raise click.BadParameter(f"{wanted}. It has {len(kept)}.")
        return kept

    return check


@click.group(name="keys", epilog=GROUP_EPILOG)
def keys_group() -> None:
    """Make, list, rotate and end API keys."""


@keys_group.command(cls=SettingsCommand, name="create", epilog=CREATE_EPILOG)
@click.option(
    "--name", required=True, callback=name_of("key"), help="What the key is for; shown in lists and in the audit trail."
)
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="Allow only this; may be repeated.")
@click.option("--test", is_flag=True, help="Mark it as a key for tests (sk_test_…, rk_test_…).")
@click.option("--all-scopes", is_flag=True, help="Allow everything. Without --scope that is the default.")
@click.option(
    "--expires-in", type=EXPIRY, metavar="TIME", help="Good for so long, such as 90d, or never. The default is never."
)
@click.option("--project", "project_id", metavar="ID", help="Its project, id or name; none: the first one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def create(
    loaded: Loaded,
    *,
    name: str,
    scopes: tuple[str, ...],
    all_scopes: bool,
    test: bool,
    expires_in: int | None,
    project_id: str | None,
    as_json: bool,
) -> None:
    """Make an API key and show it once.

    At a terminal, scopes and expiry that are not given are asked for.
    """
    if scopes and all_scopes:
        raise click.UsageError("Say either --scope, once for each, or --all-scopes.")
    if _may_ask(as_json=as_json):
        scopes = scopes if scopes or all_scopes else _ask_for_scopes()
        expires_in = _ask_for_expiry() if expires_in is None else expires_in
    where = loaded.settings.registry
    if isinstance(where, Path) and not (where / DATABASE_NAME).exists():
        output.note(f"There is no registry in {where} yet: making one.")
    _, first_project = first_start(loaded.settings)

    def make(tx: Tx) -> tuple[key_sql.KeyRecord, str]:
        expires_at = None if expires_in in (None, NEVER) else tx.now + (expires_in or 0)
        project = project_id or first_project
        return administration.create_key(tx, project, name, CLI, scopes=scopes, test=test, expires_at=expires_at)

    row, secret = on_registry(where, make)
    _show_secret(row, secret, as_json=as_json)


def _may_ask(*, as_json: bool) -> bool:
    """Return whether a person can be asked: not if the key goes into a variable, a file or another program."""
    return not as_json and all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _ask_for_scopes() -> tuple[str, ...]:
    """Ask what the key may do; the enter key alone means everything."""
    asked = f"What may it do: all, or some of {' '.join(SCOPES)}"
    given: tuple[str, ...] = click.prompt(asked, default="all", value_proc=_scopes, err=True)
    return given


def _scopes(answer: str) -> tuple[str, ...]:
    words = answer.replace(",", " ").split()
    unknown = [word for word in words if word not in (*SCOPES, "all")]
    if unknown or not words:
        raise click.BadParameter(f"should be all, or some of {' '.join(SCOPES)}, with spaces between them.")
    return () if "all" in words else tuple(dict.fromkeys(words))


def _ask_for_expiry() -> int:
    """Ask how long the key is good; the enter key alone means without end."""
    given: int = click.prompt("For how long is it good, such as 90d", default="never", type=EXPIRY, err=True)
    return given


def _show_secret(row: key_sql.KeyRecord, secret: str, *, as_json: bool) -> None:
    if as_json:
        output.as_json({**_facts(row), "key": secret})
        return
    click.echo(secret)
    output.note(f"This is {row.id}, named '{output.cell(row.name)}'. Keep the key now: it is not shown again.")


def on_registry(location: Location, write: Callable[[Tx], T], vault: Vault | None = None) -> T:
    """Run one transaction on this registry; with a vault it may read and write secrets.

    Raises:
        NotFoundError: it is not there.
    """
    with closing(open_existing(location)) as connection:
        return transact(connection, Context(vault=vault or Vault()), write)


@keys_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway keys list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_keys(loaded: Loaded, *, as_json: bool) -> None:
    """List the API keys.

    Their names, scopes, last use and expiry; never the keys themselves, which are not kept.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        rows = [_facts(row) for row in key_sql.all_keys(View(connection))]
    if as_json:
        output.as_json(rows)
    else:
        headings = ("ID", "NAME", "PROJECT", "KEY", "SCOPES", "STATE", "LAST USED", "EXPIRES")
        output.table(headings, map(_line, rows))


@keys_group.command(
    cls=SettingsCommand,
    name="rotate",
    epilog="\b\nExamples:\n  gateway keys rotate backend\n  gateway keys rotate key_01JD3M5Q --overlap 0",
)
@click.argument("key", metavar="KEY")
@click.option(
    "--overlap", type=DURATION, metavar="TIME", default="24h", show_default=True, help="The old one is good so long."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def rotate(loaded: Loaded, *, key: str, overlap: int, as_json: bool) -> None:
    """Give an API key a new secret.

    It is shown this once. Id, scopes and expiry of the key stay. The old secret stays good for a while; an older one is
    refused at once.
    """
    where = loaded.settings.registry
    row, secret = on_registry(where, lambda tx: administration.rotate_key(tx, key, overlap, CLI))
    _show_secret(row, secret, as_json=as_json)
    until = moment(row.previous_expires_at)
    output.note("The old secret opens nothing any more." if until is None else f"The old secret is good until {until}.")


@keys_group.command(
    cls=SettingsCommand, name="revoke", epilog="\b\nExample:\n  gateway keys revoke key_01JD3M5QZ8V9T2R4"
)
@click.argument("key", metavar="KEY")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def revoke(loaded: Loaded, *, key: str, yes: bool, as_json: bool) -> None:
    """Refuse an API key from now on.

    That cannot be undone. One that is revoked already stays as it is.
    """
    where = loaded.settings.registry
    row = on_registry(where, lambda tx: key_sql.require(tx, key))
    if row.revoked_at is not None:
        output.note(f"{row.id} ('{output.cell(row.name)}') is revoked already, since {moment(row.revoked_at)}.")
        _show(row, as_json=as_json)
        return
    used = f"last used {moment(row.last_used_at)}" if row.last_used_at else "never used"
    output.confirm(f"{row.id} ('{output.cell(row.name)}', {used}) will be refused at once and for good.", yes=yes)
    _show(on_registry(where, lambda tx: administration.revoke_key(tx, row.id, CLI)), as_json=as_json)


@keys_group.command(
    cls=SettingsCommand,
    name="expire",
    epilog="\b\nExamples:\n  gateway keys expire backend --in 30d\n  gateway keys expire backend --never",
)
@click.argument("key", metavar="KEY")
@click.option(
    "--in", "--expires-in", "time", type=DURATION, metavar="TIME", help="Good for so long from now, such as 30d."
)
@click.option("--never", is_flag=True, help="Good for ever.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def expire(loaded: Loaded, *, key: str, time: int | None, never: bool, as_json: bool) -> None:
    """Say until when an API key is good."""
    if (time is None) != never:
        raise click.UsageError("Say either --in TIME, such as 30d, or --never.")

    def write(tx: Tx) -> key_sql.KeyRecord:
        return administration.expire_key(tx, key, None if time is None else tx.now + time, CLI)

    _show(on_registry(loaded.settings.registry, write), as_json=as_json)


def _show(row: key_sql.KeyRecord, *, as_json: bool) -> None:
    if as_json:
        output.as_json(_facts(row))
    else:
        output.details({**_facts(row), "scopes": " ".join(json.loads(row.scopes))})


def _facts(row: key_sql.KeyRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "project_id": row.project_id,
        "starts_with": row.hint,
        "scopes": json.loads(row.scopes),
        "state": _state(row),
        "created_at": moment(row.created_at),
        "last_used_at": moment(row.last_used_at),
        "expires_at": moment(row.expires_at),
        "rotated_at": moment(row.rotated_at),
        "previous_expires_at": moment(row.previous_expires_at),
        "revoked_at": moment(row.revoked_at),
    }


def _state(row: key_sql.KeyRecord) -> str:
    now = Context().clock()
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at < now:
        return "expired"
    return "rotating" if (row.previous_expires_at or 0) > now else "active"


def _line(facts: dict[str, Any]) -> tuple[str, ...]:
    scopes = "all" if len(facts["scopes"]) == len(SCOPES) else " ".join(facts["scopes"])
    return (
        facts["id"],
        facts["name"],
        facts["project"],
        f"{facts['starts_with']}…",
        scopes,
        facts["state"],
        facts["last_used_at"] or "never",
        facts["expires_at"] or "never",
    )
