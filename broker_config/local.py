"""What it takes to start a Mosquitto of one's own on this machine: a program, a free port, a user."""

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
"""Where Linux starts to hand out ports to clients: a server above it collides with somebody's connection."""

NEEDS_NO_LOCKS = (2, 1)
"""From this version on a session that SIGHUP cuts twice does not crash Mosquitto."""

UNPRIVILEGED = ("mosquitto", "nobody")

_TRIES = 1_000
_ANSWER_SECONDS = 10.0
_VERSION = re.compile(r"mosquitto version (\d+)\.(\d+)")
_PLUGIN = "mosquitto_dynamic_security.so"
_LIBRARIES = ("usr/lib/*-linux-gnu*", "usr/lib", "usr/lib64", "usr/local/lib", "usr/local/lib64", "opt/homebrew/lib")


class NoMosquittoError(FileNotFoundError):
    """Mosquitto is not installed."""


def binary(name: str = "mosquitto") -> str:
    """The path of `mosquitto`, or of one of its tools. Raises NoMosquittoError, saying what to install."""
    path = found(name)
    if path is None:
        raise NoMosquittoError(f"{name} was not found: apt-get install mosquitto mosquitto-clients")
    return path


def found(name: str = "mosquitto") -> str | None:
    """The path of `mosquitto`, or of one of its tools; None when it is not installed.

    Debian keeps the broker out of most users' PATH.
    """
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def version(program: str) -> tuple[int, int] | None:
    """Major and minor version of this Mosquitto; None when it does not say.

    Raises OSError or subprocess.TimeoutExpired when it cannot be run.
    """
    asked = subprocess.run([program, "-h"], capture_output=True, check=False, timeout=_ANSWER_SECONDS)  # noqa: S603
    told = _VERSION.search(asked.stdout.decode(errors="replace"))
    return (int(told[1]), int(told[2])) if told else None


def locks_plugin() -> Path | None:
    """The dynamic security plugin, where the Mosquitto installed here needs it: before 2.1, see docs/mosquitto.md."""
    try:
        program = found()
        if program is None or (version(program) or NEEDS_NO_LOCKS) >= NEEDS_NO_LOCKS:
            return None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next((path for folder in _LIBRARIES for path in sorted(Path("/").glob(f"{folder}/{_PLUGIN}"))), None)


def own_user() -> str:
    """The user that a broker becomes which root starts: the one of Debian's package, else nobody.

    Raises LookupError when this system has neither.
    """
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(name).pw_uid != 0:
                return name
    raise LookupError(f"this system has none of the users {', '.join(UNPRIVILEGED)}")


def free_port(host: str = "127.0.0.1") -> int:
    """A port in FIRST_PORT..EPHEMERAL_START - 1 that nobody was listening on a moment ago.

    Another process may take it before its user binds it, so whoever starts a server there tries again with another
    one. Raises OSError when a thousand ports in a row are taken.
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
