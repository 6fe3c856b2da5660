"""``gateway signing-keys``: the keys that sign commands, in the data directory, whether or not a gateway runs on it.

A device obeys the key that it got when it was bound, for as long as that binding lasts. So a new key is used for new
bindings. An old key is out of use when the last device that has it is bound again.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.keys import on_registry
from gateway.cli.options import SettingsCommand, with_settings
from gateway.cli.suggestions import again
from gateway.domain import administration
from gateway.errors import NotFoundError
from gateway.runtime.sealing import vault_of
from gateway.store import View, open_database, token_sql
from gateway.store.backup import require_registry
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI
from gateway.store.token_sql import RelyingDevice, SigningKeyUse

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

GROUP_EPILOG: Final = """\b
Examples:
  gateway signing-keys list
  gateway signing-keys rotate
  gateway signing-keys devices KID --json | jq -r '.[].id'

What to do when one leaked: 'gateway docs runbook'.
"""
_COLUMNS: Final = ("KID", "STATE", "DEVICES", "CREATED", "RETIRED")
_DEVICE_COLUMNS: Final = ("ID", "SERIAL", "END USER", "TOKEN", "PROJECT")


@click.group(name="signing-keys", epilog=GROUP_EPILOG)
def signing_keys_group() -> None:
    """List and change the keys that sign commands."""


@signing_keys_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway signing-keys list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def list_signing_keys(loaded: Loaded, *, as_json: bool) -> None:
    """List the keys that sign commands.

    With how many devices obey each; never the private halves.
    """
    require_registry(loaded.settings.data_dir)
    with closing(open_database(loaded.settings.data_dir)) as connection:
        found = [_facts(key) for key in token_sql.signing_keys(View(connection))]
    if as_json:
        output.as_json(found)
    else:
        output.table(_COLUMNS, (list(facts.values()) for facts in found))


def _facts(key: SigningKeyUse) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "state": _state(key),
        "devices": key.devices,
        "created_at": moment(key.created_at),
        "retired_at": moment(key.retired_at),
    }


def _state(key: SigningKeyUse) -> str:
    if key.retired_at is None:
        return "in use"
    return "retired, still obeyed" if key.devices else "retired"


@signing_keys_group.command(
    cls=SettingsCommand, name="rotate", epilog="\b\nExample:\n  gateway signing-keys rotate --yes"
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir", "encryption_key_file")
def rotate(loaded: Loaded, *, yes: bool, as_json: bool) -> None:
    """Sign for new bindings with a new key.

    It is used from the very next bind on. Bound devices obey the old key until they are bound again; the old key signs
    for them alone.
    """
    output.confirm("New bindings will be told a new signing key, for good.", yes=yes)
    vault = vault_of(loaded.settings.encryption_key_file)
    before, kid = on_registry(loaded.settings.data_dir, lambda tx: administration.rotate_signing_key(tx, CLI), vault)
    if as_json:
        output.as_json({"kid": kid, "retired": before})
        return
    output.details({"kid": kid, "retired": before})
    if before is not None:
        output.note(f"Who obeys the old one still: {again('signing-keys', 'devices', before)}")


@signing_keys_group.command(
    cls=SettingsCommand,
    name="devices",
    epilog="\b\nExample:\n  gateway signing-keys devices bMLiE09XTGJjawFhXalEUx98DsLmOo2STDHJBSv1dWM",
)
@click.argument("kid", metavar="KID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings("data_dir")
def devices(loaded: Loaded, *, kid: str, as_json: bool) -> None:
    """List the devices that obey a signing key.

    Those whose binding was made with it, of every project.
    """
    require_registry(loaded.settings.data_dir)
    with closing(open_database(loaded.settings.data_dir)) as connection:
        found = [device._asdict() for device in _relying_on(View(connection), kid)]
    if as_json:
        output.as_json(found)
        return
    fields = ("id", "serial_number", "end_user_id", "token_state", "project_id")
    output.table(_DEVICE_COLUMNS, ([facts[field] for field in fields] for facts in found))


def _relying_on(view: View, kid: str) -> list[RelyingDevice]:
    if token_sql.signing_key(view, kid) is None:
        raise NotFoundError(f"There is no signing key '{kid[:80]}'. 'gateway signing-keys list' shows those there are.")
    return token_sql.relying_on(view, kid)
