"""Writes the set of files, or updates it. What a person changed is kept."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import broker_config
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.errors import UnavailableError
from gateway.runtime.owned_files import Owner, check_place, make_folder, own, read, replace
from gateway.setup import cell, certificates, runnable
from gateway.setup.cell import PASSWORD_NAME
from gateway.setup.file_manifest import FileManifest
from gateway.setup.file_templates import DeploymentPaths, texts
from gateway.setup.options import DeploymentPlan, InitOptions, deployment_plan

if TYPE_CHECKING:
    from gateway.setup.file_manifest import State

ACCOUNTS: Final = "accounts"
GATEWAY, INTEGRATOR = "gateway", "integrator"
_SECRET_BYTES: Final = 32
_PASSWORD: Final = re.compile(r"^broker *= *\"mqtts?://gateway:([^@\"]+)@", re.MULTILINE)
_HEADER: Final = (
    "# The passwords that 'gateway broker init' made, for you. Neither Mosquitto nor the gateway reads this file:\n"
    "# delete it, or keep it to yourself. Devices have passwords of their own, and integrators get accounts of their\n"
    "# own by 'gateway accounts create', one named integrator in the place of this one.\n"
)


@dataclass(frozen=True)
class InitOutcome:
    """The plan that was written for, the outcome of each file, and the file with the passwords."""

    site: DeploymentPlan
    files: dict[str, State]
    accounts: Path
    new_accounts: bool
    problems: tuple[str, ...] = ()
    """What of the units would fail, and the remedy."""


def initialise(directory: Path, wish: InitOptions, *, force: bool = False) -> InitOutcome:
    """Write the set for these options, with earlier ones where an option is not given.

    Raises:
        InvalidRequestError: the options cannot be used; nothing was written.
        UnavailableError: a file cannot be read or written.
    """
    try:
        check_place(directory)
        ledger = FileManifest(directory.absolute(), force=force)
        whole = wish.over(InitOptions.from_json(ledger.options))
        made = deployment_plan(directory, whole)
        return _written(made, whole, ledger)
    except OSError as error:
        raise UnavailableError(f"{error.filename or directory} cannot be written ({error.strerror}).") from error


def _written(made: DeploymentPlan, wish: InitOptions, ledger: FileManifest) -> InitOutcome:
    _make_folders(made)
    _database_password(made, ledger)
    passwords, new = _accounts(made, ledger)
    if made.tls != "none":
        make = certificates.of_authority if made.tls == "trial" else certificates.of_files
        ledger.states.update(make(made, *_certificates_wanted(made)))
    for name, (content, owner) in texts(made, passwords[GATEWAY]).items():
        ledger.put(name, content, owner)
    _password_file(made, passwords, ledger)
    _locks_file(made)
    ledger.save(wish.to_json())
    return InitOutcome(made, ledger.states, made.directory / ACCOUNTS, new, _problems(made))


def _problems(made: DeploymentPlan) -> tuple[str, ...]:
    of_cell = [] if made.cell is None else cell.problems(made.tls, made.broker_host)
    return (*runnable.problems(made), *of_cell)


def _database_password(made: DeploymentPlan, ledger: FileManifest) -> None:
    if made.cell is not None and made.cell.password is not None:
        owner = _owner(made, 0o640, None, made.gateway.gid)
        content = f"{made.cell.password.get_secret_value()}\n".encode()
        ledger.note(PASSWORD_NAME, certificates.copied(made.directory / PASSWORD_NAME, content, owner))


def _certificates_wanted(made: DeploymentPlan) -> tuple[dict[str, Owner], dict[str, Owner]]:
    """Return who shows a certificate, and who trusts its authority."""
    for_gateway = _owner(made, 0o640, None, made.gateway.gid)
    shown = {"mosquitto/server.pem": _owner(made, 0o640, None, made.broker.gid)}
    shown |= {"gateway/server.pem": for_gateway} if made.http_tls else {}
    return shown, {"ca.pem": Owner(0o644), "gateway/broker-ca.pem": for_gateway}


def _owner(made: DeploymentPlan, mode: int, uid: int | None, gid: int) -> Owner:
    """Return the owner. Only root can give files away; for others both processes have the same user anyway."""
    return Owner(mode, uid if uid is not None else 0, gid) if made.privileged else Owner(mode)


def _make_folders(made: DeploymentPlan) -> None:
    places, gateway, broker = DeploymentPaths(made.directory), made.gateway, made.broker
    made.directory.mkdir(parents=True, exist_ok=True)
    folders = {
        places.mosquitto: _owner(made, 0o750, None, broker.gid),
        places.gateway: _owner(made, 0o750, None, gateway.gid),
        places.passwords: _owner(made, 0o2750, gateway.uid, broker.gid),
        places.run: _owner(made, 0o775, broker.uid, broker.gid),
        places.persistence: _owner(made, 0o770, broker.uid, broker.gid),
        places.data: _owner(made, 0o700, gateway.uid, gateway.gid),
        made.directory / "systemd": Owner(0o755),
    }
    for folder, owner in folders.items():
        make_folder(folder, owner)


def _accounts(made: DeploymentPlan, ledger: FileManifest) -> tuple[dict[str, str], bool]:
    """Return the passwords of the gateway and of integrators, and whether one of them is new.

    Earlier ones are in the file of accounts. Without that file the gateway's is in its settings; the integrator's is
    known to the integrator alone.
    """
    file, places = made.directory / ACCOUNTS, DeploymentPaths(made.directory)
    known = _in_settings(places.gateway / "gateway.toml") | _read(file)
    wanted = {GATEWAY, INTEGRATOR} - set(known)
    if read(places.password_file) is not None:  # a plain file: kept_entries would follow a link
        wanted -= {INTEGRATOR} & set(kept_entries(places.password_file))
    new = {name: secrets.token_urlsafe(_SECRET_BYTES) for name in sorted(wanted)}
    if new:
        lines = "".join(f"{name} {password}\n" for name, password in {**known, **new}.items())
        ledger.note(ACCOUNTS, "updated" if file.exists() else "written")
        replace(file, f"{_HEADER}{lines}".encode(), Owner(0o600))
    return {**known, **new}, bool(new)


def _read(file: Path) -> dict[str, str]:
    text = (read(file) or b"").decode()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: password for name, _, password in (line.partition(" ") for line in lines)}


def _in_settings(file: Path) -> dict[str, str]:
    """Return the gateway's password from the URL of its broker."""
    found = _PASSWORD.search((read(file) or b"").decode())
    return {GATEWAY: unquote(found[1])} if found else {}


def _locks_file(made: DeploymentPlan) -> None:
    """Write the first state of the plugin of a Mosquitto 2.0.

    The plugin replaces the file itself, in its own folder.
    """
    path = DeploymentPaths(made.directory).persistence / "locks.json"
    if read(path) is None:
        replace(path, broker_config.NO_LOCKS.encode(), _owner(made, 0o600, made.broker.uid, made.broker.gid))


def _password_file(made: DeploymentPlan, passwords: dict[str, str], ledger: FileManifest) -> None:
    """Write the first password file: Mosquitto does not start without one. Later it belongs to the gateway."""
    path, name = DeploymentPaths(made.directory).password_file, "passwords/passwords"
    if read(path) is not None:
        ledger.note(name, "unchanged")
        return
    fixed = {user: own_entry(password, None) for user, password in passwords.items()}
    PasswordFile(path, pid_file=None, fixed=fixed).write(())
    own(path, _owner(made, 0o640, made.gateway.uid, made.broker.gid))
    ledger.note(name, "written")
