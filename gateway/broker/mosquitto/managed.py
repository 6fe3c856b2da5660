"""The Mosquitto that the gateway manages: its files in the data directory, its certificate, its supervisor.

All files are derived and rewritten at each start: ``mosquitto.conf`` and ``acl`` from ``broker_config``, the password
file from the registry, the certificate from the files that the settings name. Accounts that an operator added to the
password file stay.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

import broker_config
from broker_config import local
from gateway.broker.mosquitto.access import Rights
from gateway.broker.mosquitto.orphan import find_orphan
from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile
from gateway.broker.mosquitto.supervisor import Supervisor
from gateway.core import files
from gateway.core.addresses import Address
from gateway.errors import UnavailableError
from gateway.runtime.owned_files import Owner, make_folder, read, replace
from gateway.runtime.owned_files import own as give
from gateway.runtime.private_files import replace_text
from gateway.settings.loading import Settings
from gateway.tls.certificates import ServerCertificate, client_context

log = structlog.get_logger()

FOLDER: Final = "mosquitto"
_TLS_NAME: Final = "tls.pem"
_STORE: Final = "mosquitto.db"
_READ_BY_BROKER: Final = 0o640
_READ_BY_ALL: Final = 0o644
_ENTERED_BY_BROKER: Final = 0o2750
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True)
class ManagedMosquitto:
    """Where it listens, how the gateway verifies it, and the files that both share."""

    listening: Address
    inside: Address
    tls: ssl.SSLContext | None
    files: broker_config.Rendered


def prepared(settings: Settings, certificate: ServerCertificate | None, devices: int) -> ManagedMosquitto:
    """Write its files for a fleet of so many devices, and return them.

    Raises:
        UnavailableError: they cannot be written, or a value does not fit into them.
    """
    folder = settings.data_dir.resolve() / FOLDER
    listening = _with_port(settings.mqtt)
    user = _user()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if user:
            _hand_over(folder, user)
        together = _together(folder, certificate) if certificate else None
        files = broker_config.render(
            folder,
            port=listening.port,
            host=listening.host,
            prefix=settings.topic_prefix,
            tls=broker_config.Tls(Path(together.name), Path(together.name)) if together else None,
            user=user.pw_name if user else local.UNPRIVILEGED[0],
            plugin=local.locks_plugin(),
            devices=devices,
            inside=True,
        )
        for file in (files.config, files.acl):
            file.chmod(_READ_BY_BROKER)
        if user:
            _hand_over_files(files, user)
    except (OSError, broker_config.BrokerConfigError) as error:
        raise UnavailableError(f"The files of Mosquitto cannot be written into {folder}: {error}") from error
    pinned = client_context(None, pinned=certificate.chain) if certificate else None
    return ManagedMosquitto(listening, _inside(listening), pinned, files)


def written_for(settings: Settings) -> int | None:
    """Return the size of the fleet that its files were written for, or None if no file says it."""
    return broker_config.written_for(settings.data_dir / FOLDER / "mosquitto.conf")


def _user() -> pwd.struct_passwd | None:
    """Return the user that Mosquitto becomes when root starts it, or None when it keeps the user of the gateway.

    Raises:
        UnavailableError: there is no unprivileged user.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(local.own_user())
    except LookupError as error:
        raise UnavailableError(
            f"Mosquitto must not run as root, and {error.args[0]}. Run the gateway as another user than root, or make "
            "one for Mosquitto: useradd --system --no-create-home --shell /usr/sbin/nologin mosquitto"
        ) from error


def _hand_over(folder: Path, user: pwd.struct_passwd) -> None:
    """Let Mosquitto's user read the folder's files, and nothing above the folder: Mosquitto is started in there.

    The set-group bit gives each new file in it to the group. What Mosquitto writes has a separate folder.
    """
    make_folder(folder, Owner(_ENTERED_BY_BROKER, os.geteuid(), user.pw_gid))
    make_folder(folder / "persistence", Owner(0o700, user.pw_uid, user.pw_gid))


def _hand_over_files(files: broker_config.Rendered, user: pwd.struct_passwd) -> None:
    """Give the user the files that Mosquitto writes, also those that a Mosquitto running as root has left."""
    if read(files.pid_file) is None:
        replace(files.pid_file, b"", Owner(_READ_BY_ALL))
    give(files.pid_file, Owner(_READ_BY_ALL, user.pw_uid, user.pw_gid))
    for file in (files.locks, files.persistence_dir / _STORE):
        with contextlib.suppress(FileNotFoundError):
            give(file, Owner(0o600, user.pw_uid, user.pw_gid))


def store_of(own: ManagedMosquitto) -> Path:
    """Return the file in which it saves sessions and retained messages."""
    return own.files.persistence_dir / _STORE


def rights(own: ManagedMosquitto, prefix: str) -> Rights:
    """Return a function that rewrites its ``acl`` with these integrators besides those that it ships with."""
    shipped = own.files.acl.read_text(encoding="utf-8")

    def write(names: Mapping[str, str | None]) -> None:
        lines = (broker_config.reading(name, prefix, project_id) for name, project_id in names.items())
        wanted = "\n".join([shipped, *lines])
        if own.files.acl.read_text(encoding="utf-8") != wanted:
            replace_text(own.files.acl, wanted, mode=_READ_BY_BROKER)
            own.files.acl.chmod(_READ_BY_BROKER)  # the umask may have reduced it

    return write


async def run(own: ManagedMosquitto, program: str, settings: Settings, stack: AsyncExitStack) -> Supervisor:
    """Run it until ``stack`` ends. Its password file must exist.

    Raises:
        UnavailableError: it does not come up.
    """
    if os.geteuid() == 0:
        message = f"The gateway runs as root: give it a user of its own. Its Mosquitto runs as {local.own_user()}."
        log.warning("broker.runs_as_root", message=message)
    supervisor = Supervisor(
        program,
        own.files.config,
        stop_seconds=settings.shutdown_seconds,
        store=store_of(own),
        passwords=own.files.password_file,
    )
    return await stack.enter_async_context(supervisor)


def pid(settings: Settings) -> int | None:
    """Return the process that runs with these files now, or None."""
    found = find_orphan(settings.data_dir.resolve() / FOLDER / "mosquitto.conf")
    return found[0] if found else None


def follow(certificate: ServerCertificate, own: ManagedMosquitto, passwords: PasswordFile) -> None:
    """Make Mosquitto, and the gateway's own connection to it, reload this certificate at each renewal."""

    def taken_up() -> None:
        _together(own.files.config.parent, certificate)
        if own.tls is not None:
            own.tls.load_verify_locations(certificate.chain)
        try:
            passwords.reload()
        except BrokerSignalError as error:  # it is about to start, and reads the file then
            log.warning("certificate.not_signalled", message=error.message)

    certificate.on_taken_up = taken_up


def _together(folder: Path, certificate: ServerCertificate) -> Path:
    """Write chain and key into one file, which is replaced in one step.

    Mosquitto reads both at each SIGHUP, also when the SIGHUP is for the password file. With two files it could read the
    new chain with the old key, and would refuse every client until the next SIGHUP.
    """
    file, mode = folder / _TLS_NAME, _READ_BY_BROKER if os.geteuid() == 0 else 0o600
    both = certificate.chain.read_bytes() + b"\n" + certificate.key.read_bytes()
    files.replace(file, both, prepare=lambda descriptor: os.fchmod(descriptor, mode))
    return file


def _with_port(address: Address) -> Address:
    """Return the address with a free port where port 0 is given. Mosquitto cannot pick one itself."""
    if address.port:
        return address
    with socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET) as probe:
        probe.bind((address.host, 0))
        return Address(address.host, probe.getsockname()[1])


def _inside(listening: Address) -> Address:
    """Return the address at which this machine reaches the listener."""
    return Address(_LOOPBACK[6 if ":" in listening.host else 4], listening.port) if listening.is_wildcard else listening
