"""Ports for tests: one to listen on, and one where nothing listens."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from broker_config.local import EPHEMERAL_START, FIRST_PORT, free_port

__all__ = ["EPHEMERAL_START", "FIRST_PORT", "closed_port", "free_port"]


@contextmanager
def closed_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Yield a port that refuses every connection.

    The port stays bound and never listens, so no server of another test can take it meanwhile.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind((host, 0))
        yield bound.getsockname()[1]
