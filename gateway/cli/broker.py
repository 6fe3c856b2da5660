"""``gateway broker``: a Mosquitto beside the gateway."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from broker_config.sizes import DEFAULT_DEVICES, MOST_DEVICES
from gateway.cli import output
from gateway.cli.suggestions import repeated
from gateway.errors import InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from gateway.setup.broker_init import InitOutcome
    from gateway.setup.options import DeploymentPlan

EPILOG: Final = """\b
Examples:
  gateway broker init ./site                                   a trial on this machine, as this user
  gateway broker init /srv/device-gateway --host 0.0.0.0 --name gateway.lan --devices 100000
  gateway broker init /srv/device-gateway --host 0.0.0.0 --name mqtt.example.org \\
      --cert-file fullchain.pem --key-file privkey.pem         with a certificate from elsewhere
  gateway broker init /srv/device-gateway --host 0.0.0.0 --name mqtt.example.org --cell cell_1 \\
      --database postgresql://gateway@db1,db2/registry --database-password-file password \\
      --cert-file fullchain.pem --key-file privkey.pem         a cell, one of several machines

Called once more it brings the set up to date, with the options of the last time where none are given: certificates
that are about to end are renewed, and what you have changed is left alone. 'gateway docs mosquitto' has the whole way.
"""
_SAYS: Final = {
    "written": "new",
    "unchanged": "as it was",
    "updated": "brought up to date",
    "kept": "changed by you, left alone",
    "replaced": "changed by you, overwritten; yours is in FILE.old",
}
_READ_BY_MOSQUITTO: Final = ("mosquitto/mosquitto.conf", "mosquitto/acl")


@click.group(name="broker", epilog=EPILOG)
def broker_group() -> None:
    """Set up a Mosquitto beside the gateway.

    One that the gateway runs itself needs nothing of this: gateway serve --broker mosquitto.
    """


@broker_group.command(
    epilog="""\b
Example:
  gateway broker reloader --socket run/reload --pid-file run/mosquitto.pid --for-user device-gateway
"""
)
@click.option("--socket", "path", type=click.Path(path_type=Path), required=True, help="Where it listens.")
@click.option("--pid-file", type=click.Path(path_type=Path), required=True, help="Mosquitto's pid file.")
@click.option("--for-user", required=True, metavar="USER", help="The gateway's user, by name or number.")
def reloader(*, path: Path, pid_file: Path, for_user: str) -> None:
    """Reload Mosquitto when the gateway asks.

    Run it as Mosquitto's user; the gateway then needs no right to signal that (setting mosquitto_reload_socket).
    """
    from gateway.broker.mosquitto import reloader as reloading  # noqa: PLC0415 - no other command needs it

    uid = _uid_of(for_user)
    try:
        with reloading.listening(path) as bound:
            reloading.serve(bound, pid_file, uid)
    except OSError as error:
        raise UnavailableError(f"--socket: cannot listen at {path} ({error.strerror or error}).") from error


def _uid_of(user: str) -> int:
    try:
        return int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise InvalidRequestError(f"--for-user: there is no user {user[:64]!r}.") from error


@broker_group.command(epilog=EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", metavar="ADDRESS", help="Where Mosquitto listens.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65_535), help="Its port.  [default: 8883 with TLS, 1883 without]")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name or an IP address by which devices reach it; again for each, the first is what they are told.  "
    "[default: the host name]",
)
@click.option("--prefix", metavar="PREFIX/", help="Put before every topic.")
@click.option("--http", metavar="HOST:PORT", help="Where the HTTP API listens.  [default: 127.0.0.1:8080]")
@click.option(
    "--tls",
    type=click.Choice(["trial", "files", "none"]),
    help="With a trial authority, with your files, or without.  [default: trial]",
)
@click.option("--cert-file", metavar="FILE", help="Your certificate, with those between it and its authority (PEM).")
@click.option("--key-file", metavar="FILE", help="Its key, without a password (PEM).")
@click.option("--ca-file", metavar="FILE", help="Its authority, where the system does not know that (PEM).")
@click.option("--user", metavar="USER", help="Whom the gateway runs as.  [default: you, or as root device-gateway]")
@click.option("--broker-user", metavar="USER", help="Whom Mosquitto runs as.  [default: you, or as root mosquitto]")
@click.option("--insecure-listen/--no-insecure-listen", default=None, help="Let other machines in without TLS.")
@click.option("--cell", metavar="ID", help="Name of this broker among several that share a registry on PostgreSQL.")
@click.option("--gateway-id", metavar="ID", help="Name of its gateway, another one for each.  [default: gw_CELL]")
@click.option("--database", metavar="URL", help="Registry of the cells: postgresql://USER@HOST/DATABASE.")
@click.option("--database-password-file", metavar="FILE", help="Password of that user; it is copied into DIR.")
@click.option(
    "--devices",
    type=click.IntRange(1, MOST_DEVICES),
    metavar="N",
    help="Expected size of the fleet at this broker: sets autosave_interval and the limits of queues, memory and open "
    f"files.  [default: {DEFAULT_DEVICES}]",
)
@click.option("--force", is_flag=True, help="Overwrite what you have changed, too.")
@click.option("--json", "as_json", is_flag=True, help="What was done, as JSON.")
def init(*, directory: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write what a Mosquitto beside it needs.

    With --cell: what one cell among several machines needs. Into DIR: configuration, who may do what, passwords,
    certificates, settings of the gateway that fit, and units for systemd. Nothing outside of DIR is touched, and
    nothing is started.
    """
    from gateway.setup.broker_init import initialise  # noqa: PLC0415 - cryptography, which is not needed before
    from gateway.setup.options import InitOptions  # noqa: PLC0415 - the same

    try:
        outcome = initialise(directory, InitOptions(**given), force=force)
    except InvalidRequestError as error:
        raise click.UsageError(error.message + _without_users(error)) from error
    if as_json:
        output.as_json(_document(outcome))
    else:
        _show(outcome)


def _without_users(error: InvalidRequestError) -> str:
    """Return the command that works without the missing users, where those are the problem."""
    instead = error.details.get("instead")
    return f"\nOr, for a trial, as a user that there is: {repeated(instead)}" if instead else ""


def _document(outcome: InitOutcome) -> dict[str, Any]:
    made = outcome.site
    return {
        "directory": str(made.directory),
        "broker": {"host": made.listen.host, "port": made.listen.port, "tls": made.tls, "names": list(made.names)},
        "http": str(made.http),
        "cell": _cell(made),
        "settings": str(made.directory / "gateway" / "gateway.toml"),
        "accounts": str(outcome.accounts) if outcome.accounts.exists() else None,
        "problems": list(outcome.problems),
        "files": [{"path": name, "state": state} for name, state in sorted(outcome.files.items())],
    }


def _cell(made: DeploymentPlan) -> dict[str, str] | None:
    cell = made.cell
    if cell is None:
        return None
    return {"broker_id": cell.broker_id, "gateway_id": cell.gateway_id, "database": str(cell.database.url)}


def _show(outcome: InitOutcome) -> None:
    made = outcome.site
    output.table(("FILE", "STATE"), [(name, _SAYS[state]) for name, state in sorted(outcome.files.items())])
    changed = [name for name, state in outcome.files.items() if state == "kept"]
    if any((made.directory / f"{name}.new").exists() for name in changed):
        output.note("\nWhat this version would write instead of your changes lies beside them, as FILE.new.")
    if outcome.new_accounts:
        output.note(f"\nPasswords were made: they are in {outcome.accounts}, for you alone.")
    if any(outcome.files.get(name) in ("updated", "replaced") for name in _READ_BY_MOSQUITTO):
        output.note("\nMosquitto goes by its new configuration and access rules once it is restarted.")
    for problem in outcome.problems:
        output.note(f"\nwarning: {problem}")
    output.note(_next_steps(outcome))


def _next_steps(outcome: InitOutcome) -> str:
    made = outcome.site
    units = made.directory / "systemd"
    reload = " device-gateway-reload" if "systemd/device-gateway-reload.service" in outcome.files else ""
    by_hand = (
        f"  mosquitto -c {made.directory}/mosquitto/mosquitto.conf\n"
        f"  gateway serve --config {made.directory}/gateway/gateway.toml"
    )
    by_systemd = (
        f"  cp {units}/*.service /etc/systemd/system/ && systemctl daemon-reload\n"
        "  systemctl disable --now mosquitto          # the one of the distribution\n"
        f"  systemctl enable --now device-gateway-mosquitto{reload} device-gateway"
    )
    check = f"  gateway doctor --config {made.directory}/gateway/gateway.toml"
    trust = f"\nDevices and integrators trust {made.directory}/ca.pem." if "ca.pem" in outcome.files else ""
    how = f"By systemd:\n{by_systemd}" if made.privileged else f"Start them, each in a terminal:\n{by_hand}"
    return f"\n{how}\nThen look whether all is well:\n{check}{trust}"
