"""``gateway accounts``: accounts of integrators at the broker, in the data directory itself.

A running gateway notices changes within a quarter of a second, and admits or cuts clients accordingly.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from broker_config import reading
from gateway.bootstrap import first_start
from gateway.cli import output
from gateway.cli.keys import on_registry
from gateway.cli.options import SettingsCommand, with_settings
from gateway.domain import administration
from gateway.settings import registry
from gateway.store import Tx, View, account_sql, key_sql, open_existing
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.settings.loading import Loaded, Settings

DEFAULT: Final = account_sql.INTEGRATOR
ALL_TOPICS: Final = ("devices/+/state", "devices/+/events/#", "gateways/#")
HOME_ASSISTANT_TOPICS: Final = ("devices/+/state", "gateways/#", "homeassistant/#")
GROUP_EPILOG: Final = """\b
Examples:
  gateway accounts create integrator_dashboard --project ward
  gateway accounts create integrator --all-projects
  gateway accounts revoke integrator_dashboard
"""
CREATE_EPILOG: Final = """\b
Examples:
  gateway accounts create integrator_dashboard --project ward
  gateway accounts create integrator --all-projects
  PASSWORD=$(gateway accounts create integrator_dashboard --json | jq -r .password)

The password is shown this once; the registry keeps only hashes of it.
"""


@click.group(name="accounts", epilog=GROUP_EPILOG)
def accounts_group() -> None:
    """Let integrators read along at the broker.

    An account reads the state and the events of the devices of one project, and the gateway's own status; with
    --all-projects those of every project. It writes nothing. Give each program its own account: Mosquitto admits each
    at most once at a time.
    """


@accounts_group.command(cls=SettingsCommand, name="create", epilog=CREATE_EPILOG)
@click.argument("name", default=DEFAULT)
@click.option("--project", metavar="ID", help="The project that it reads, id or name; none: the first one.")
@click.option("--all-projects", is_flag=True, help="Read the devices of every project, those made later too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "broker", "topic_prefix", "mosquitto_password_file", "broker_auth")
def create(loaded: Loaded, *, name: str, project: str | None, all_projects: bool, as_json: bool) -> None:
    """Make an account and show its password once.

    NAME begins with 'integrator_'. Two names read all projects and need --all-projects:
    'integrator', which is taken if NAME is left out, and 'home_assistant', which reads how
    devices are announced as well.
    """
    if project is not None and all_projects:
        raise click.UsageError("--project and --all-projects exclude each other: leave one out.")
    _, first_project = first_start(loaded.settings)

    def make(tx: Tx, name: str, actor: str) -> str:
        wanted = None if all_projects else key_sql.require_project(tx, project or first_project).id
        return administration.create_account(tx, name, wanted, actor)

    row = _make(loaded, name, make, as_json=as_json)
    output.note(f"It may read: {', '.join(_topics(row, loaded.settings.topic_prefix))}")
    _note_broker(loaded.settings, row)


@accounts_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway accounts list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_accounts(loaded: Loaded, *, as_json: bool) -> None:
    """List the accounts.

    Those that were revoked too.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        rows = [_facts(row) for row in account_sql.everyone(View(connection))]
    if as_json:
        output.as_json(rows)
    else:
        output.table(("NAME", "PROJECT", "PASSWORD MADE", "REVOKED"), (_cells(each) for each in rows))


@accounts_group.command(
    cls=SettingsCommand, name="rotate", epilog="\b\nExample:\n  gateway accounts rotate integrator_dashboard"
)
@click.argument("name", default=DEFAULT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def rotate(loaded: Loaded, *, name: str, as_json: bool) -> None:
    """Give an account another password.

    It is shown this once. The old one is refused at once, and clients that use it are cut.
    """
    _make(loaded, name, administration.rotate_account, as_json=as_json)


@accounts_group.command(
    cls=SettingsCommand, name="revoke", epilog="\b\nExample:\n  gateway accounts revoke integrator_dashboard --yes"
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def revoke(loaded: Loaded, *, name: str, yes: bool, as_json: bool) -> None:
    """Refuse an account from now on.

    Its clients are cut. One that is revoked already stays as it is.
    """
    where = loaded.settings.registry
    before = on_registry(where, lambda tx: account_sql.find(tx, name) or account_sql.require(tx, name))
    if before.revoked_at is not None:
        output.note(f"'{name}' is revoked already, since {moment(before.revoked_at)}.")
        facts = _facts(before)
    else:
        output.confirm(f"The account '{name}' will be refused at once.", yes=yes)
        facts = _facts(on_registry(where, lambda tx: administration.revoke_account(tx, name, CLI)))
    if as_json:
        output.as_json(facts)
    else:
        output.details(facts)


def _make(
    loaded: Loaded, name: str, verb: Callable[[Tx, str, str], str], *, as_json: bool
) -> account_sql.AccountRecord:
    def write(tx: Tx) -> tuple[account_sql.AccountRecord, str]:
        password = verb(tx, name, CLI)
        return account_sql.require(tx, name), password

    row, password = on_registry(loaded.settings.registry, write)
    if as_json:
        output.as_json({**_facts(row), "password": password})
        return row
    click.echo(password)
    output.note(f"This is the password of '{name}'. Keep it now: it is not shown again.")
    return row


def _topics(account: account_sql.AccountRecord, prefix: str) -> list[str]:
    """Return what the account may read, as topic filters."""
    if account.name == account_sql.HOME_ASSISTANT:
        return [f"{prefix}{each}" for each in HOME_ASSISTANT_TOPICS]
    of = "" if account.project_id is None else f"projects/{account.project_id}/"
    return [f"{prefix}{of if each.startswith('devices') else ''}{each}" for each in ALL_TOPICS]


def _note_broker(settings: Settings, account: account_sql.AccountRecord) -> None:
    """Warn of what the gateway cannot do at an external broker."""
    if settings.embedded or settings.broker_auth is not None:
        return
    if settings.mosquitto_password_file is None and not settings.own_broker:
        output.note("The gateway writes no accounts at your broker: make it there, with these rights.")
    name = account.name
    if not settings.own_broker and (settings.mosquitto_password_file is None or name not in account_sql.KNOWN):
        lines = reading(name, settings.topic_prefix, account.project_id)
        output.note(f"Add this to Mosquitto's ACL file, then send it SIGHUP:\n\n{lines}")


def _facts(row: account_sql.AccountRecord) -> dict[str, Any]:
    return {
        "name": row.name,
        "project_id": row.project_id,
        "all_projects": row.project_id is None,
        "created_at": moment(row.created_at),
        "revoked_at": moment(row.revoked_at),
    }


def _cells(facts: dict[str, Any]) -> list[Any]:
    """Return a row of the list."""
    return [facts["name"], facts["project_id"] or "all", facts["created_at"], facts["revoked_at"]]
