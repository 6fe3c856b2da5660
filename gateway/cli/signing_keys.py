"""``gateway signing-keys``: the keys that sign commands, in the data directory, whether or not a gateway runs on it.

A device obeys the key that it got when it was bound. So a new key is used for new bindings. Bound devices keep the old
key until they are bound again, or take the new key in a delivery. Then the old key is out of use.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.keys import on_registry
from gateway.cli.options import SettingsCommand, with_settings
from gateway.cli.suggestions import again
from gateway.domain import administration, grant_keys
from gateway.errors import NotFoundError
from gateway.runtime.sealing import vault_of
from gateway.settings import registry
from gateway.store import View, grant_key_sql, open_existing, signing_key_sql
from gateway.store.device_sql import moment
from gateway.store.event_sql import CLI
from gateway.store.signing_key_sql import RelyingDevice, SigningKeyUse

if TYPE_CHECKING:
    from gateway.settings.loading import Loaded

GROUP_EPILOG: Final = """\b
Examples:
  gateway signing-keys list
  gateway signing-keys rotate
  gateway signing-keys deliver
  gateway signing-keys progress
  gateway signing-keys devices KID --json | jq -r '.[].id'

What to do when one leaked: 'gateway docs runbook'.
"""
_HYPHENATED: Final = re.compile(r"-[A-Za-z0-9_-]{42}")
"""Form of a key's id that begins with a hyphen, as one in 64 does."""
_COLUMNS: Final = ("KID", "STATE", "DEVICES", "CREATED", "RETIRED", "LEAKED")
_DEVICE_COLUMNS: Final = ("ID", "SERIAL", "END USER", "TOKEN", "PROJECT")


class KeyCommand(SettingsCommand):
    """A command with the id of a key, which may begin with a hyphen and is no option then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put such ids behind ``--``."""
        ids = [each for each in args if _HYPHENATED.fullmatch(each)]
        others = [each for each in args if each not in ids]
        return super().parse_args(ctx, [*others, "--", *ids] if ids else args)


@click.group(name="signing-keys", epilog=GROUP_EPILOG)
def signing_keys_group() -> None:
    """List and change the keys that sign commands."""


@signing_keys_group.command(cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway signing-keys list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_signing_keys(loaded: Loaded, *, as_json: bool) -> None:
    """List the keys that sign commands.

    With how many devices obey each; never the private halves.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        found = [_facts(key) for key in signing_key_sql.signing_keys(View(connection))]
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
        "leaked_at": moment(key.leaked_at),
    }


def _state(key: SigningKeyUse) -> str:
    if key.retired_at is None:
        return "in use"
    state = "retired" if key.leaked_at is None else "leaked"
    return f"{state}, still obeyed" if key.devices else state


@signing_keys_group.command(
    cls=SettingsCommand, name="rotate", epilog="\b\nExample:\n  gateway signing-keys rotate --yes"
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def rotate(loaded: Loaded, *, yes: bool, as_json: bool) -> None:
    """Sign for new bindings with a new key.

    It is used from the very next bind on. Bound devices obey the old key until they are bound again, or take the new
    one ('gateway signing-keys deliver'); the old key signs for them alone.
    """
    output.confirm("New bindings will be told a new signing key, for good.", yes=yes)
    vault = vault_of(loaded.settings.encryption_key_file)
    before, kid = on_registry(loaded.settings.registry, lambda tx: administration.rotate_signing_key(tx, CLI), vault)
    if as_json:
        output.as_json({"kid": kid, "retired": before})
        return
    output.details({"kid": kid, "retired": before})
    if before is not None:
        output.note(f"Who obeys the old one still: {again('signing-keys', 'devices', before)}")
        output.note(f"Have bound devices take the new one, after a backup: {again('signing-keys', 'deliver')}")


@signing_keys_group.command(
    cls=SettingsCommand,
    name="deliver",
    epilog="\b\nExamples:\n  gateway signing-keys deliver --yes\n  gateway signing-keys deliver --stop",
)
@click.option("--stop", is_flag=True, help="Ask no further device. Commands that are open stay open.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES, "encryption_key_file")
def deliver(loaded: Loaded, *, stop: bool, yes: bool, as_json: bool) -> None:
    """Have bound devices take the key in use.

    The gateway sends each of them a command 'set_grant_key', signed with the key that the device obeys, at the pace of
    a bulk reset. It continues after a restart. A device that does not know this command keeps its key. Run it again to
    ask those once more.

    Make a backup first, with 'gateway backup', and use no older one. A backup from before 'rotate' does not have the
    new key. A gateway that is restored from it cannot command a device that has taken that key.
    """
    directory, vault = loaded.settings.data_dir, vault_of(loaded.settings.encryption_key_file)
    if stop:
        kid = on_registry(directory, lambda tx: administration.stop_delivery(tx, CLI), vault)
    else:
        output.confirm("Bound devices will take the signing key in use. Is there a backup that has it?", yes=yes)
        kid = on_registry(directory, lambda tx: administration.deliver_signing_key(tx, CLI), vault)
    _show({"kid": kid, "state": "stopped" if stop else "started"}, as_json=as_json)
    if not stop:
        output.note(f"How far it is: {again('signing-keys', 'progress')}")


@signing_keys_group.command(
    cls=SettingsCommand, name="progress", epilog="\b\nExample:\n  gateway signing-keys progress --json"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def progress(loaded: Loaded, *, as_json: bool) -> None:
    """Show how many devices took the key in use.

    Devices that are 'confirmed' obey this key alone.

    Those that are 'confirming' obey it, and the old one until the next command.

    Those that are 'asked' have not answered yet.

    Those that 'kept' their key have answered that they cannot take it. Most do not know the command.

    The 'others' were not asked.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        facts = _progress(View(connection))
    _show(facts, as_json=as_json)


def _progress(view: View) -> dict[str, Any]:
    key, started = signing_key_sql.signing_key(view), grant_key_sql.delivery(view)
    if key is None:
        raise NotFoundError("There is no signing key yet: a gateway that starts makes the first.")
    is_of_key = started is not None and started.kid == key.kid
    state = "asking" if grant_keys.running(view) else "all are asked" if is_of_key else "not started"
    return {"kid": key.kid, "delivery": state, **grant_key_sql.progress(view, key.kid)._asdict()}


@signing_keys_group.command(
    cls=KeyCommand,
    name="leaked",
    epilog="\b\nExample:\n  gateway signing-keys leaked bMLiE09XTGJjawFhXalEUx98DsLmOo2STDHJBSv1dWM --yes",
)
@click.argument("kid", metavar="KID")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def leaked(loaded: Loaded, *, kid: str, yes: bool, as_json: bool) -> None:
    """Mark a retired key as known to others.

    No device is to take a new key on its word any more, since the thief can have a device take a key as well. Commands
    that do so are withdrawn. The devices that obey it need a new bind: 'gateway signing-keys devices KID' lists them.
    """
    output.confirm("Devices that obey this key will need a new bind to get another one.", yes=yes)
    withdrawn = on_registry(loaded.settings.registry, lambda tx: administration.mark_signing_key_leaked(tx, kid, CLI))
    _show({"kid": kid, "withdrawn_commands": withdrawn}, as_json=as_json)


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    (output.as_json if as_json else output.details)(facts)


@signing_keys_group.command(
    cls=KeyCommand,
    name="devices",
    epilog="\b\nExample:\n  gateway signing-keys devices bMLiE09XTGJjawFhXalEUx98DsLmOo2STDHJBSv1dWM",
)
@click.argument("kid", metavar="KID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def devices(loaded: Loaded, *, kid: str, as_json: bool) -> None:
    """List the devices that obey a signing key.

    Those whose binding was made with it, of every project.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        found = [device._asdict() for device in _relying_on(View(connection), kid)]
    if as_json:
        output.as_json(found)
        return
    fields = ("id", "serial_number", "end_user_id", "token_state", "project_id")
    output.table(_DEVICE_COLUMNS, ([facts[field] for field in fields] for facts in found))


def _relying_on(view: View, kid: str) -> list[RelyingDevice]:
    if signing_key_sql.signing_key(view, kid) is None:
        raise NotFoundError(f"There is no signing key '{kid[:80]}'. 'gateway signing-keys list' shows those there are.")
    return signing_key_sql.relying_on(view, kid)
