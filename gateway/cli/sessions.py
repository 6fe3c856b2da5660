"""``gateway sessions``: sessions of people who signed in, in the registry itself, whether or not a gateway runs on it.

A gateway that runs looks each session up when it is used: one that was revoked is refused at the next request.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.keys import on_registry
from gateway.cli.options import SettingsCommand, with_settings
from gateway.domain import sessions
from gateway.settings import registry
from gateway.store import Context, View, open_existing, session_sql
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI
from gateway.store.people_sql import actor_of

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded
    from gateway.store.session_sql import SessionRecord

GROUP_EPILOG: Final = """\b
Examples:
  gateway sessions list
  gateway sessions revoke user:ann

Sessions begin when people sign in on the page through OpenID Connect ('gateway docs sign-in').
"""
REVOKE_EPILOG: Final = """\b
Examples:
  gateway sessions revoke ses_01JD3M5QZ8V9T2R4W6X7Y8Z9AB
  gateway sessions revoke user:ann

SESSION is the id of a session, or a person (user:SUB), whose sessions then end all. The person can sign in again as
long as the provider gives a role: take that away there first.
"""


@click.group(name="sessions", epilog=GROUP_EPILOG)
def sessions_group() -> None:
    """List and end sessions of people."""


@sessions_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway sessions list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_sessions(loaded: Loaded, *, as_json: bool) -> None:
    """List sessions.

    Those that ended stay in the list for a day.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        rows = [_facts(row) for row in session_sql.everyone(View(connection))]
    if as_json:
        output.as_json(rows)
    else:
        headings = ("ID", "PERSON", "NAME", "PROJECT", "ROLE", "STATE", "LAST USED", "EXPIRES")
        output.table(headings, map(_line, rows))


@sessions_group.command(cls=SettingsCommand, name="revoke", epilog=REVOKE_EPILOG)
@click.argument("session", metavar="SESSION")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def revoke(loaded: Loaded, *, session: str, as_json: bool) -> None:
    """End a session, or all sessions of a person.

    The next request with its cookie is refused, and its event streams end within seconds.
    """
    ended = on_registry(loaded.settings.registry, lambda tx: sessions.revoke(tx, session, CLI))
    facts = [{**_facts(row), "state": "revoked"} for row in ended]
    if as_json:
        output.as_json(facts)
    else:
        for each in facts:
            click.echo(f"{each['id']} of {output.cell(each['name'])} ({each['person']}) is revoked.")


def _facts(row: SessionRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "person": actor_of(row.sub),
        "name": row.name,
        "project": row.project,
        "project_id": row.project_id,
        "role": row.role,
        "state": _state(row),
        "created_at": moment(row.created_at),
        "last_used_at": moment(row.last_used_at),
        "confirmed_at": moment(row.confirmed_at),
        "expires_at": moment(row.expires_at),
        "ended_at": moment(row.ended_at),
    }


def _state(row: SessionRecord) -> str:
    if row.ended_because is not None:
        return row.ended_because
    return "open" if row.is_good(Context().clock()) else "expired"


def _line(facts: dict[str, Any]) -> tuple[str, ...]:
    names = ("id", "person", "name", "project", "role", "state", "last_used_at", "expires_at")
    return tuple(facts[name] for name in names)
