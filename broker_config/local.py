"""What it takes to start a Mosquitto of one's own on this machine: a program, a free port, a user."""

import os
import secrets
import shutil
import socket

FIRST_PORT = 10_240
EPHEMERAL_START = 32_768
"""Where Linux starts to hand out ports to clients: a server above it collides with somebody's connection."""

_TRIES = 1_000


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


def own_user() -> str:
    """The `user` to render: started as root the broker stays root, since it may have to read root's directories."""
    return "root" if os.geteuid() == 0 else "mosquitto"


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
