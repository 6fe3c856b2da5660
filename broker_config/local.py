"""Requirements of a Mosquitto on this machine: its program, a free port, an unprivileged user."""

import contextlib
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

FIRST_PORT = 10_240
EPHEMERAL_START = 32_768
"""First ephemeral port of Linux. A server port above it may be in use by an outgoing connection."""

NEEDS_NO_LOCKS = (2, 1)
"""First version that survives a session that SIGHUP cuts twice."""

UNPRIVILEGED = ("mosquitto", "nobody")

_TRIES = 1_000
_ANSWER_SECONDS = 10.0
_VERSION = re.compile(r"mosquitto version (\d+)\.(\d+)")
_PLUGIN = "mosquitto_dynamic_security.so"
_LIBRARIES = ("usr/lib/*-linux-gnu*", "usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib64", "opt/homebrew/lib")


class NoMosquittoError(FileNotFoundError):
    """Mosquitto is not installed."""


def binary(name: str = "mosquitto") -> str:
    """Return the path of `mosquitto`, or of one of its tools.

    Raises:
        NoMosquittoError: it is not installed; the message names the packages.
    """
    path = found(name)
    if path is None:
        raise NoMosquittoError(f"{name} was not found: apt-get install mosquitto mosquitto-clients")
    return path


def found(name: str = "mosquitto") -> str | None:
    """Return the path of `mosquitto`, or of one of its tools; None when it is not installed.

    Debian installs the broker outside of most users' PATH, so system folders are searched too.
    """
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def version(program: str) -> tuple[int, int] | None:
    """Return major and minor version of this Mosquitto; None when its output has no version.

    Raises:
        OSError: it cannot be run.
        subprocess.TimeoutExpired: it does not end.
    """
    asked = subprocess.run([program, "-h"], capture_output=True, check=False, timeout=_ANSWER_SECONDS)  # noqa: S603
    told = _VERSION.search(asked.stdout.decode(errors="replace"))
    return (int(told[1]), int(told[2])) if told else None


def locks_plugin() -> Path | None:
    """Return the dynamic security plugin if the installed Mosquitto needs it: before 2.1, see docs/mosquitto.md."""
    try:
        program = found()
        if program is None or (version(program) or NEEDS_NO_LOCKS) >= NEEDS_NO_LOCKS:
            return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((path for folder in _LIBRARIES for path in sorted(Path("/").glob(f"{folder}/{_PLUGIN}"))), None)


def own_user() -> str:
    """Return the user of a broker that root starts: the user of Debian's package, else `nobody`.

    Raises:
        LookupError: this system has neither.
    """
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(name).pw_uid != 0:
                return name
    raise LookupError(f"this system has none of the users {', '.join(UNPRIVILEGED)}")


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free port in FIRST_PORT..EPHEMERAL_START - 1.

    Another process may take it before it is used, so callers try again with another port.

    Raises:
        OSError: a thousand ports in a row are in use.
    """
    for _ in range(_TRIES):
        port = FIRST_PORT + secrets.randbelow(EPHEMERAL_START - FIRST_PORT)
        if _is_free(host, port):
            return port
    raise OSError(f"no free port on {host} between {FIRST_PORT} and {EPHEMERAL_START} in {_TRIES} tries")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
