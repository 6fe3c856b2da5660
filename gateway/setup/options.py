"""Options of ``gateway broker init``: checked, completed, and saved for the next time."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import TypeAdapter, ValidationError

from broker_config.sizes import DEFAULT_DEVICES, SizeLimits, size_limits
from gateway.core.addresses import Address
from gateway.errors import InvalidRequestError
from gateway.settings.types import TopicPrefix
from gateway.setup.cell import Cell, cell_of

Tls = Literal["trial", "files", "none"]
TLS_PORT: Final = 8883
PLAIN_PORT: Final = 1883
GATEWAY_USER: Final = "device-gateway"
BROKER_USER: Final = "mosquitto"
_FILES: Final = ("cert_file", "key_file", "ca_file", "database_password_file")
_APT: Final = "apt-get install mosquitto"
_USERADD: Final = "useradd --system --no-create-home --shell /usr/sbin/nologin"
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class InitOptions:
    """The options as given now or the last time; None and empty mean the default."""

    host: str | None = None
    port: int | None = None
    names: tuple[str, ...] = ()
    prefix: str | None = None
    http: str | None = None
    tls: Tls | None = None
    cert_file: str | None = None
    key_file: str | None = None
    ca_file: str | None = None
    user: str | None = None
    broker_user: str | None = None
    insecure_listen: bool | None = None
    cell: str | None = None
    gateway_id: str | None = None
    database: str | None = None
    database_password_file: str | None = None
    devices: int | None = None

    def over(self, earlier: InitOptions) -> InitOptions:
        """Return these options, with earlier ones where nothing is given now.

        Raises:
            InvalidRequestError: they contradict each other.
        """
        given = self.to_json()
        given |= {
            name: str(Path(given[name]).absolute()) for name in _FILES if name in given
        }  # the next time it may be run elsewhere
        if self.cert_file or self.key_file or self.ca_file:
            if self.tls not in (None, "files"):
                raise InvalidRequestError(f"A certificate was given, and --tls is {self.tls}: leave one of them out.")
            given["tls"] = "files"
        elif self.tls in ("trial", "none"):
            earlier = replace(earlier, cert_file=None, key_file=None, ca_file=None)
        return replace(earlier, **given)

    def to_json(self) -> dict[str, Any]:
        """Return the options for the manifest."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the options of a manifest; what this version does not know is left out."""
        known = {each.name for each in fields(cls)}
        return cls(
            **{
                name: value
                for name, value in {**document, "names": tuple(document.get("names", ()))}.items()
                if name in known
            }
        )


@dataclass(frozen=True)
class SystemAccount:
    """A user of this system, by name and numbers."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class DeploymentPlan:
    """The resolved plan: every value is given and valid."""

    directory: Path
    listen: Address
    names: tuple[str, ...]
    prefix: str
    http: Address
    tls: Tls
    files: tuple[Path, ...]
    """With ``tls`` files: chain, key, and the authority if one was named."""
    gateway: SystemAccount
    broker: SystemAccount
    insecure: bool
    cell: Cell | None = None
    devices: int | None = None
    """The expected size of the fleet, or None if it was not given."""
    privileged: bool = field(default_factory=lambda: os.geteuid() == 0)

    @property
    def http_tls(self) -> bool:
        """Return whether the API needs a certificate: as soon as other machines reach it."""
        return self.tls != "none" and not self.http.is_loopback

    @property
    def broker_host(self) -> str:
        """Return the name by which the gateway connects to the broker: one that its certificate holds.

        In a cell the first name may lead to a load balancer, so the last one is taken.
        """
        if self.tls == "files":
            return self.names[-1 if self.cell else 0]
        if self.listen.is_wildcard:
            return "::1" if ":" in self.listen.host else "127.0.0.1"
        return self.listen.host

    @property
    def sizes(self) -> SizeLimits:
        """Return the limits of the broker for that fleet."""
        return size_limits(DEFAULT_DEVICES if self.devices is None else self.devices)

    @property
    def certified(self) -> tuple[str, ...]:
        """Return the names that a certificate of our own holds."""
        own = () if self.listen.is_wildcard else (self.listen.host,)
        return tuple(dict.fromkeys((*self.names, *own, *LOCAL_NAMES)))


def deployment_plan(directory: Path, wish: InitOptions) -> DeploymentPlan:
    """Complete and check the options.

    Raises:
        InvalidRequestError: something would not work, or would not be safe; the message says what to do.
    """
    tls: Tls = wish.tls or "trial"
    host = wish.host or "127.0.0.1"
    port = wish.port or (PLAIN_PORT if tls == "none" else TLS_PORT)
    listen, http = _address("--host", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), _http(wish)
    accounts = _accounts(wish)
    made = DeploymentPlan(
        directory=_directory(directory),
        listen=listen,
        names=_names(wish.names) or _default_names(listen),
        prefix=_prefix(wish.prefix or ""),
        http=http,
        tls=tls,
        files=_files(tls, wish),
        gateway=accounts[0],
        broker=accounts[1],
        insecure=bool(wish.insecure_listen),
        cell=cell_of(wish.cell, wish.gateway_id, wish.database, wish.database_password_file),
        devices=wish.devices,
    )
    _refuse_open_listeners(made)
    _refuse_other_users(made)
    return made


def _default_names(listen: Address) -> tuple[str, ...]:
    return ("localhost",) if listen.is_loopback else (socket.gethostname(),)


def _http(wish: InitOptions) -> Address:
    return _address("--http", wish.http or "127.0.0.1:8080")


def _address(option: str, text: str) -> Address:
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise InvalidRequestError(f"{option}: {text!r} {error}") from None
    if address.port == 0:
        raise InvalidRequestError(f"{option}: the port should be 1 to 65535, since others have to know it.")
    return address


def _directory(directory: Path) -> Path:
    """Check the path: it stands in files of four kinds, each with other special characters."""
    path = directory.absolute()
    if not all(each.isascii() and (each.isalnum() or each in "/._-") for each in str(path)):
        raise InvalidRequestError(f"{path}: should have only letters, digits and . _ - in its path.")
    return path


def _prefix(text: str) -> str:
    try:
        return TypeAdapter[str](TopicPrefix).validate_python(text)
    except ValidationError as error:
        raise InvalidRequestError(f"--prefix: {text!r} {error.errors()[0]['ctx']['error']}") from None


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names: they get into addresses that devices are given, and into certificates."""
    for each in names:
        try:
            address = Address.parse(f"[{each}]:1" if ":" in each else f"{each}:1")
        except ValueError:
            address = None
        if address is None or address.is_wildcard:
            raise InvalidRequestError(f"--name: {each!r} should be a host name or an IP address by which devices come.")
    return names


def _files(tls: Tls, wish: InitOptions) -> tuple[Path, ...]:
    if tls != "files":
        return ()
    if not (wish.cert_file and wish.key_file):
        raise InvalidRequestError("--tls files needs both --cert-file and --key-file.")
    if not wish.names:
        raise InvalidRequestError("--name: say by which name of that certificate the broker is reached.")
    given = (wish.cert_file, wish.key_file, wish.ca_file)
    return tuple(Path(each).absolute() for each in given if each)


def _accounts(wish: InitOptions) -> tuple[SystemAccount, SystemAccount]:
    """Return the users that the gateway and the broker run as."""
    root, here = os.geteuid() == 0, pwd.getpwuid(os.geteuid()).pw_name
    names = {
        "--user": wish.user or (GATEWAY_USER if root else here),
        "--broker-user": wish.broker_user or (BROKER_USER if root else here),
    }
    missing = {option: name for option, name in names.items() if not _exists(name)}
    if missing:
        raise _no_such_users(missing)
    gateway, broker = (pwd.getpwnam(name) for name in names.values())
    return (
        SystemAccount(gateway.pw_name, gateway.pw_uid, gateway.pw_gid),
        SystemAccount(broker.pw_name, broker.pw_uid, broker.pw_gid),
    )


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _no_such_users(missing: dict[str, str]) -> InvalidRequestError:
    """Return an error with a line for each missing user; ``details`` name a user for a trial."""
    lines = [
        f"{option}: there is no user {name} on this machine. Make it, or name another with {option}. To make it: "
        f"{_APT if name == BROKER_USER else f'{_USERADD} {name}'}"
        for option, name in missing.items()
    ]
    here = pwd.getpwuid(os.geteuid()).pw_name
    return InvalidRequestError("\n".join(lines), details={"instead": dict.fromkeys(missing, here)})


def _refuse_open_listeners(made: DeploymentPlan) -> None:
    reached = [name for name, each in (("--host", made.listen), ("--http", made.http)) if not each.is_loopback]
    if made.tls == "none" and reached and not made.insecure:
        raise InvalidRequestError(
            f"{' and '.join(reached)}: other machines would reach it without TLS, and keys and device tokens could be "
            "read on the way. Leave out '--tls none', or say --insecure-listen if that network may see them."
        )


def _refuse_other_users(made: DeploymentPlan) -> None:
    others = [each.name for each in (made.gateway, made.broker) if each.uid != os.geteuid()]
    if others and not made.privileged:
        raise InvalidRequestError(f"Only root can make files for {' and '.join(others)}: run this as root.")
