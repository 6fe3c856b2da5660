"""Command line: one file per family of commands. Errors become one clear line and an exit code here."""

from __future__ import annotations

import atexit
import gc
from typing import TYPE_CHECKING, Final

import click

from gateway.cli.lazy_loading import Commands
from gateway.core.redaction import redact
from gateway.core.text import wants_colour
from gateway.core.visible_text import escaped
from gateway.errors import ConflictError, GatewayError
from gateway.runtime import gc_tuning
from gateway.settings.loading import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILURE: Final = 1
USAGE: Final = 2
ALREADY_RUNNING: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
NOT_ALLOWED: Final = 6
INTERRUPTED: Final = 130
_BY_CODE: Final = {
    "already_running": ALREADY_RUNNING,
    "not_found": NOT_FOUND,
    "unauthorized": NOT_ALLOWED,
    "insufficient_scope": NOT_ALLOWED,
}

EPILOG: Final = """\b
Examples:
  gateway serve                          run it, with its own broker, on this machine
  gateway keys create --name backend     make an API key
  gateway devices list                   see the devices
  gateway top                            see the fleet, live
  gateway backup FILE                    copy the registry, also while it serves
  gateway config                         show what is set, and by what
  gateway doctor                         look for what is wrong, and say what to do
  gateway tls init DIR                   make certificates, for a trial
  gateway broker init DIR                set up a Mosquitto beside it
  gateway docs                           read the documentation

\b
Exit codes:
  0  done
  1  it failed; stderr says why
  2  wrong usage or a wrong setting
  3  another gateway runs on this data directory, or under this gateway_id
  4  there is no such thing
  5  the state of things forbids it
  6  the API key does not open it
  7  a check found something: the doctor, or 'resets report --max-age'
  8  what --wait or 'jobs watch' waited for has not happened in time
  9  the job that was watched aborted itself
  10 the job that was watched was cancelled
"""


COMMANDS: Final = Commands(
    {
        "serve": "gateway.cli.serve:serve",
        "projects": "gateway.cli.projects:projects_group",
        "keys": "gateway.cli.keys:keys_group",
        "accounts": "gateway.cli.accounts:accounts_group",
        "certificates": "gateway.cli.certificates:certificates_group",
        "sessions": "gateway.cli.sessions:sessions_group",
        "signing-keys": "gateway.cli.signing_keys:signing_keys_group",
        "secrets": "gateway.cli.secrets:secrets_group",
        "devices": "gateway.cli.devices:devices_group",
        "commands": "gateway.cli.commands:commands_group",
        "resets": "gateway.cli.resets:resets_group",
        "jobs": "gateway.cli.jobs:jobs_group",
        "webhooks": "gateway.cli.webhooks:webhooks_group",
        "audit": "gateway.cli.audit:audit",
        "events": "gateway.cli.events:events_group",
        "end-users": "gateway.cli.end_users:end_users_group",
        "top": "gateway.cli.top:top",
        "watch": "gateway.cli.watch:watch",
        "registry": "gateway.cli.registry:registry_group",
        "cluster": "gateway.cli.cluster:cluster",
        "cells": "gateway.cli.cells:cells_group",
        "backup": "gateway.cli.backup:backup",
        "restore": "gateway.cli.backup:restore",
        "migrate": "gateway.cli.migrate:migrate",
        "migrate-schema": "gateway.cli.migrate_schema:migrate_schema",
        "config": "gateway.cli.config:config",
        "doctor": "gateway.cli.doctor:doctor",
        "health": "gateway.cli.health:health",
        "tls": "gateway.cli.tls:tls_group",
        "broker": "gateway.cli.broker:broker_group",
        "demo": "gateway.cli.demo:demo",
        "docs": "gateway.cli.docs:docs",
        "completion": "gateway.cli.completion:completion",
        "version": "gateway.cli.version:version",
    }
)


def _show_version(context: click.Context, parameter: click.Parameter, value: object) -> None:
    del parameter  # click's signature
    if value and not context.resilient_parsing:
        from gateway.cli.version import in_one_line  # noqa: PLC0415 - no command needs what this imports

        click.echo(in_one_line())
        context.exit()


@click.group(name="gateway", epilog=EPILOG, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show version, commit and schema, and exit.",
)
def cli() -> None:
    """Keeps the registry of your wearables and resets them over MQTT, without ever losing a reset."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code. Expected errors are a line each on stderr, without a traceback."""
    # Else Python collects garbage among all that was imported when it ends: a sixth of the CPU time of a short command.
    atexit.register(gc.freeze)
    gc_tuning.collect_rarely()
    try:
        return run(arguments)
    except Exception as error:
        expected = expected_in(error)
        if expected is None:
            raise
        return failed(expected)


def run(arguments: Sequence[str] | None) -> int:
    """Run a command. Errors of click are reported in the same form as ours."""
    try:
        # None: click's own rule, which is to colour a terminal.
        colour = None if wants_colour() else False
        outcome = cli.main(arguments, prog_name="gateway", standalone_mode=False, color=colour)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        complain(error.format_message())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"try: {error.ctx.command_path} --help", err=True)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return outcome if isinstance(outcome, int) else 0


def failed(error: GatewayError) -> int:
    """Report an error; return its exit code."""
    complain(error.message)
    if isinstance(error, SettingsError):
        return USAGE
    if isinstance(error, ConflictError):
        return CONFLICT
    return _BY_CODE.get(error.code, FAILURE)


def expected_in(error: Exception) -> GatewayError | None:
    """Return the expected error that this is, or the first one of a group of them; None for others.

    An error of the database is one, unless a single statement is to blame: that is a bug of ours.
    """
    if isinstance(error, ExceptionGroup):
        found = [expected_in(each) for each in error.exceptions]
        return None if None in found else found[0]
    if isinstance(error, GatewayError):
        return error
    from gateway.store.errors import USED, concerns_all, store_error  # noqa: PLC0415 - the store, which help needs not

    return store_error(error, USED, again=False) if concerns_all(error) else None


def complain(message: str) -> None:
    """Write one line on stderr for each line of the message, which may quote a broker or a device."""
    for line in message.split("\n"):
        click.echo(f"error: {escaped(redact(line))}", err=True)
