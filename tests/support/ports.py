"""Free TCP ports for servers that cannot be asked to bind port 0."""

import secrets
import socket

FIRST_PORT = 10_240
EPHEMERAL_START = 32_768
"""Where Linux starts to hand out ports to clients: a server above it collides with somebody's connection."""

_TRIES = 1_000


def free_port(host: str = "127.0.0.1") -> int:
    """A port in `FIRST_PORT`..`EPHEMERAL_START` - 1 that nobody was listening on a moment ago.

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
