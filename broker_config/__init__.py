"""Broker configuration files, the same for tests, the demo and production.

They are data files of this package with `{{placeholders}}`. `render` fills in those of Mosquitto, and `gateway broker
init` the others.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Required, TextIO, TypedDict, Unpack

from broker_config.sizes import DEFAULT_DEVICES, SizeLimits, size_limits
from gateway.core.command_types import CommandType

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_PREFIX = re.compile(r"([A-Za-z0-9_.-]+/)*")
_HOST = re.compile(r"[A-Za-z0-9_.:-]+")
_USER = re.compile(r"[a-z_][a-z0-9_-]*")
_HIGHEST_PORT = 65_535
_WRITTEN_FOR = re.compile(r"^# Limits are those of a fleet of (\d+) devices\.$", re.MULTILINE)
TLS_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, the minimum that Mosquitto accepts: no CBC (RFC 9325, section 4.2)."""

NO_LOCKS = (
    '{"defaultACLAccess": {"publishClientSend": false, "publishClientReceive": false, "subscribe": false, '
    '"unsubscribe": false}}\n'
)
"""Initial file of the dynamic security plugin: it neither allows nor refuses anything."""


class BrokerConfigError(ValueError):
    """A value that would make a broken or an unsafe broker configuration."""


@dataclass(frozen=True)
class Tls:
    """TLS files (PEM) of the listener: certificate chain and key, which may be one file.

    With a `client_authority` every client needs a certificate from it, besides its password.
    """

    chain: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True)
class Rendered:
    """Paths of the files of one broker. The broker and the gateway both need `password_file` and `pid_file`."""

    config: Path
    acl: Path
    password_file: Path
    pid_file: Path
    persistence_dir: Path
    locks: Path


class Options(TypedDict, total=False):
    """Options of `render` and `texts` besides the directory.

    Without other paths the directory also holds `passwords`, `mosquitto.pid` and `persistence/`. The gateway must write
    the password file before the broker starts. `prefix` is the topic prefix, empty or ending with `/`. `user` is the
    user of a broker that root starts. `plugin` is the dynamic security plugin, for a Mosquitto that needs it
    (`local.locks_plugin`).

    `devices` is the expected size of the fleet: it sets how often the broker saves all that it holds, and its limits of
    queues and memory.

    With `inside` the files refer to each other relative to the directory, and the broker must be started in it. Its
    user then needs no permission on the folders above.
    """

    port: Required[int]
    host: str
    prefix: str
    password_file: Path
    pid_file: Path
    persistence_dir: Path
    tls: Tls | None
    user: str
    plugin: Path | None
    devices: int
    inside: bool


def template(name: str) -> str:
    """Return the text of a data file of this package, such as `mosquitto.conf`, with its placeholders."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """Return the text of a data file with its placeholders filled in.

    Raises:
        KeyError: a placeholder has no value.
    """
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template(name))


def reading(name: str, prefix: str = "", project_id: str | None = None) -> str:
    """Return the lines of an `acl` by which another integrator of this name reads the fleet; their place is free.

    With a `project_id` it reads the devices of that project only.
    """
    of = "" if project_id is None else f"projects/{project_id}/"
    return (
        f"user {name}\n"
        f"topic read {prefix}{of}devices/+/state\n"
        f"topic read {prefix}{of}devices/+/events/#\n"
        f"topic read {prefix}gateways/#\n"
        f"topic deny {prefix}devices/{name}/#\n"
    )


def render(directory: Path, **options: Unpack[Options]) -> Rendered:
    """Write `mosquitto.conf` and `acl` into `directory`, made if missing, and return all paths.

    Raises:
        BrokerConfigError: the files cannot hold a value.
        OSError: they cannot be written.
    """
    rendered, texts_by_name = texts(directory, **options)
    for folder in (directory, rendered.persistence_dir):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts_by_name.items():
        (directory / name).write_text(text, encoding="utf-8")
    if options.get("plugin"):
        with contextlib.suppress(FileExistsError), _new(rendered.locks) as locks:
            locks.write(NO_LOCKS)
    return rendered


def written_for(config: Path) -> int | None:
    """Return the size of the fleet that this `mosquitto.conf` was written for, or None if that cannot be read."""
    try:
        found = _WRITTEN_FOR.search(config.read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) if found else None


def _new(file: Path) -> TextIO:
    """Create a file in a folder that belongs to the broker, without following a link in its place.

    Raises:
        FileExistsError: the file or a link exists.
    """
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")


def texts(directory: Path, **options: Unpack[Options]) -> tuple[Rendered, dict[str, str]]:
    """Return the paths, and the texts that `render` would write, by file name.

    Raises:
        BrokerConfigError: the files cannot hold a value.
    """
    directory = directory.absolute()
    persistence = options.get("persistence_dir", directory / "persistence").absolute()
    rendered = Rendered(
        config=directory / "mosquitto.conf",
        acl=directory / "acl",
        password_file=options.get("password_file", directory / "passwords").absolute(),
        pid_file=options.get("pid_file", directory / "mosquitto.pid").absolute(),
        persistence_dir=persistence,
        locks=persistence / "locks.json",
    )
    devices = max(DEFAULT_DEVICES, options.get("devices", DEFAULT_DEVICES))
    limits = size_limits(devices)
    seen = _relative_to(rendered, directory) if options.get("inside") else rendered
    prefix = "empty, or levels of A-Z a-z 0-9 _ . - that each end with /"
    values = {
        "port": _checked_port(options["port"]),
        "host": _checked("host", options.get("host", "127.0.0.1"), _HOST, "an address or a host name"),
        "user": _checked("user", options.get("user", "mosquitto"), _USER, "a user of this system"),
        "prefix": _checked("prefix", options.get("prefix", ""), _PREFIX, prefix),
        "acl_file": _checked_path("acl_file", seen.acl),
        "password_file": _checked_path("password_file", seen.password_file),
        "pid_file": _checked_path("pid_file", seen.pid_file),
        "persistence_dir": _checked_path("persistence_dir", seen.persistence_dir),
        "tls": _tls_lines(options.get("tls")),
        "plugin": _plugin_lines(options.get("plugin"), seen.locks),
        "devices": str(devices),
        "autosave_interval": str(limits.autosave_seconds),
        "queued_messages": str(limits.queued_messages),
        "queued_bytes": str(limits.queued_bytes),
        "memory_limit": _memory_lines(options.get("plugin"), limits),
        "acknowledgements": _acknowledgements(options.get("prefix", "")),
    }
    return rendered, {file.name: filled(file.name, values) for file in (rendered.config, rendered.acl)}


def _relative_to(rendered: Rendered, directory: Path) -> Rendered:
    paths = {each.name: getattr(rendered, each.name).relative_to(directory) for each in fields(rendered)}
    return Rendered(**paths)


def _acknowledgements(prefix: str) -> str:
    return "\n".join(f"pattern write {prefix}devices/%u/commands/{each}/ack" for each in CommandType)


def _tls_lines(tls: Tls | None) -> str:
    if tls is None:
        return "# No TLS: passwords and tokens can be read on the way. Good for loopback only."
    lines = [
        f"certfile {_checked_path('certfile', tls.chain)}",
        f"keyfile {_checked_path('keyfile', tls.key)}",
        f"ciphers {TLS_CIPHERS}",
    ]
    if tls.client_authority is not None:
        lines += [f"cafile {_checked_path('cafile', tls.client_authority)}", "require_certificate true"]
    return "\n".join(lines)


def _plugin_lines(plugin: Path | None, locks: Path) -> str:
    if plugin is None:
        return (
            "# Mosquitto 2.0 crashes when SIGHUP cuts a session with an expiry twice: the gateway needs the dynamic\n"
            "# security plugin here then. This was written for 2.1 or newer, or that plugin was not found."
        )
    return (
        "# Mosquitto 2.0 crashes when SIGHUP cuts a session with an expiry twice. So the gateway ends sessions before\n"
        "# it sends one, and keeps their users out meanwhile, by this plugin. It changes nothing for anybody else.\n"
        f"plugin {_checked_path('plugin', plugin)}\n"
        f"plugin_opt_config_file {_checked_path('plugin_opt_config_file', locks)}"
    )


def _memory_lines(plugin: Path | None, limits: SizeLimits) -> str:
    if plugin is None:
        return (
            "# All memory together: beyond it a message is dropped, and its client cut off.\n"
            "# What legitimate use takes is far less; see 'gateway docs mosquitto' before you lower it: a broker\n"
            "# whose store has no room does not start.\n"
            f"memory_limit {limits.memory_bytes}"
        )
    return (
        "# No memory_limit beside the plugin above: it gives back memory that Mosquitto 2.0 never counted as taken.\n"
        "# The count falls below zero, which is more than any limit, and everybody is cut off. Let systemd or the\n"
        "# container bound the memory ('gateway docs mosquitto')."
    )


def _checked_port(port: int) -> str:
    if not 0 < port <= _HIGHEST_PORT:
        raise BrokerConfigError(f"port: {port} should be 1 to {_HIGHEST_PORT} (Mosquitto cannot choose one itself)")
    return str(port)


def _checked(name: str, value: str, pattern: re.Pattern[str], expected: str) -> str:
    if not pattern.fullmatch(value):
        raise BrokerConfigError(f"{name}: {value!r} should be {expected}")
    return value


def _checked_path(name: str, path: Path) -> str:
    """Return the path as text. A line break would start a new option, and Mosquitto strips spaces at the end."""
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise BrokerConfigError(f"{name}: {text!r} should have neither control characters nor spaces at its ends")
    return text
