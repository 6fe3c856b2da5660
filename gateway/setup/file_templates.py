"""Contents of a site's files, from the templates of ``broker_config``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import broker_config
from broker_config import local
from broker_config.sizes import DEFAULT_DEVICES
from gateway.core.addresses import Address
from gateway.runtime.owned_files import Owner
from gateway.setup.cell import settings_text

if TYPE_CHECKING:
    from gateway.setup.options import DeploymentPlan

_LOWEST_FREE_PORT: Final = 1024
_HOMES: Final = ("/home", "/root", "/run/user")
_DEVICES: Final = (
    "\n# The fleet that mosquitto.conf was written for. For a larger one run 'gateway broker init --devices'.\n"
    "mosquitto_devices = "
)
_PUBLIC: Final = Owner(0o644)
_UNLIMITED: Final = "\n# The database may be away for longer than systemd would try.\nStartLimitIntervalSec=0"


@dataclass(frozen=True)
class DeploymentPaths:
    """The folders of a site: what each process may read, what it may write, and what neither may."""

    directory: Path

    @property
    def mosquitto(self) -> Path:
        """Return the folder that the broker reads."""
        return self.directory / "mosquitto"

    @property
    def passwords(self) -> Path:
        """Return the folder that the gateway writes and the broker reads."""
        return self.directory / "passwords"

    @property
    def password_file(self) -> Path:
        """Return the password file, the only file in it."""
        return self.passwords / "passwords"

    @property
    def run(self) -> Path:
        """Return the folder that the broker writes and the gateway reads, for the pid file."""
        return self.directory / "run"

    @property
    def reload_socket(self) -> Path:
        """Return the socket over which the gateway asks for a reload of the broker."""
        return self.run / "reload"

    @property
    def persistence(self) -> Path:
        """Return the broker's own folder."""
        return self.directory / "persistence"

    @property
    def gateway(self) -> Path:
        """Return the folder that the gateway reads."""
        return self.directory / "gateway"

    @property
    def data(self) -> Path:
        """Return the gateway's own folder, for the registry."""
        return self.directory / "data"


def texts(site: DeploymentPlan, password: str) -> dict[str, tuple[str, Owner]]:
    """Return content and owner of each file, by its path below the directory."""
    places = DeploymentPaths(site.directory)
    values = _values(site, places, password)
    root = 0 if site.privileged else None
    broker, gateway = (
        Owner(0o640, root, site.broker.gid if site.privileged else None),
        Owner(0o640, root, site.gateway.gid if site.privileged else None),
    )
    mosquitto = _mosquitto(site, places)
    return {
        "mosquitto/mosquitto.conf": (mosquitto["mosquitto.conf"], broker),
        "mosquitto/acl": (mosquitto["acl"], broker),
        "gateway/gateway.toml": (broker_config.filled("gateway.toml", values), gateway),
        **{f"systemd/{name}": (broker_config.filled(name, values), _PUBLIC) for name in _units(site)},
    }


def _units(site: DeploymentPlan) -> tuple[str, ...]:
    names = ("device-gateway.service", "device-gateway-mosquitto.service")
    return names if _is_one_user(site) else (*names, "device-gateway-reload.service")


def _is_one_user(site: DeploymentPlan) -> bool:
    return site.gateway.uid == site.broker.uid


def _reload(site: DeploymentPlan, places: DeploymentPaths) -> str:
    """Return who reloads Mosquitto for a new password file: the gateway, or a process of the broker's user."""
    if _is_one_user(site):
        return ""
    return (
        "# Mosquitto runs as another user, so a process of that user tells it (device-gateway-reload.service).\n"
        f'mosquitto_reload_socket = "{places.reload_socket}"'
    )


def _mosquitto(site: DeploymentPlan, places: DeploymentPaths) -> dict[str, str]:
    pair = places.mosquitto / "server.pem"
    _, found = broker_config.texts(
        places.mosquitto,
        port=site.listen.port,
        host=site.listen.host,
        prefix=site.prefix,
        password_file=places.password_file,
        pid_file=places.run / "mosquitto.pid",
        persistence_dir=places.persistence,
        tls=None if site.tls == "none" else broker_config.Tls(pair, pair),
        user=site.broker.name,
        plugin=local.locks_plugin(),
        devices=DEFAULT_DEVICES if site.devices is None else site.devices,
    )
    return found


def _values(site: DeploymentPlan, places: DeploymentPaths, password: str) -> dict[str, str]:
    program = mosquitto_program()
    return {
        "directory": str(site.directory),
        "mosquitto_dir": str(places.mosquitto),
        "passwords_dir": str(places.passwords),
        "password_file": str(places.password_file),
        "run_dir": str(places.run),
        "pid_file": str(places.run / "mosquitto.pid"),
        "persistence_dir": str(places.persistence),
        "gateway_dir": str(places.gateway),
        "data_dir": str(places.data),
        "authority_dir": f"-{site.directory / 'authority'}",
        "accounts": str(site.directory / "accounts"),
        "user": site.gateway.name,
        "broker_user": site.broker.name,
        "gateway": own_program(),
        "mosquitto": program,
        "prefix": site.prefix,
        "protect_home": "read-only" if _in_a_home(site.directory, own_program(), program) else "true",
        "capabilities": "CapabilityBoundingSet=",
        "reload": _reload(site, places),
        "reload_socket": str(places.reload_socket),
        "reload_unit": "" if _is_one_user(site) else " device-gateway-reload.service",
        "broker_capabilities": _broker_capabilities(site),
        "open_files": str(site.sizes.open_files),
        "memory_max": f"{site.sizes.unit_megabytes}M",
        "devices": "" if site.devices is None else f"{_DEVICES}{max(DEFAULT_DEVICES, site.devices)}\n",
        "cell": settings_text(site.cell, site.directory),
        "start_limit": _UNLIMITED if site.cell else "",
        **_addresses(site, places, password),
    }


def _addresses(site: DeploymentPlan, places: DeploymentPaths, password: str) -> dict[str, str]:
    scheme, host = "mqtt" if site.tls == "none" else "mqtts", site.broker_host
    at = Address(host, site.listen.port)
    has_authority = site.tls == "trial" or len(site.files) == 3  # noqa: PLR2004 - chain, key, authority
    return {
        "http": str(site.http),
        "http_tls": _http_tls(site, places),
        "broker_url": f"{scheme}://gateway:{quote(password, safe='')}@{at}",
        "broker_ca": f'broker_ca_file = "{places.gateway / "broker-ca.pem"}"' if has_authority else "",
        "advertise": str(Address(site.names[0], site.listen.port)),
    }


def _http_tls(site: DeploymentPlan, places: DeploymentPaths) -> str:
    if site.http_tls:
        pair = places.gateway / "server.pem"
        return f'http_cert_file = "{pair}"\nhttp_key_file = "{pair}"'
    if site.http.is_loopback:
        return (
            "# Only this machine reaches it. Beyond that it needs http_cert_file and http_key_file "
            "('gateway docs tls')."
        )
    return (
        "# Keys and device tokens can be read on the way: somebody said that this network may see them.\n"
        "insecure_listen = true"
    )


def _broker_capabilities(site: DeploymentPlan) -> str:
    if site.listen.port < _LOWEST_FREE_PORT:
        return "AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE"
    return "CapabilityBoundingSet="


def mosquitto_program() -> str:
    """Return the path of Mosquitto on this machine, or the path that the distribution will use."""
    return local.found() or "/usr/sbin/mosquitto"


def own_program() -> str:
    """Return how systemd, which knows no virtual environment, starts this program."""
    called = Path(sys.argv[0]).absolute()
    if called.name == "__main__.py" or not called.exists():
        found = shutil.which("gateway")
        return found or f"{sys.executable} -m gateway"
    return str(called)


def _in_a_home(directory: Path, *programs: str) -> bool:
    return any(str(each).startswith(_HOMES) for each in (directory, *programs))
