"""Reload of Mosquitto by a process of its user. The gateway then needs no right to signal that process.

The process listens on a Unix socket beside the pid file. A connection asks for a reload; the answer is ``ok`` or the
reason why not. The kernel tells it who connects: it serves the gateway's user, root and its own user alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile
from gateway.core.visible_text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_SECONDS: Final = 5.0
"""How long the gateway waits for the answer. The reloader keeps the distance between two signals meanwhile."""
_OK: Final = b"ok"
_LONGEST: Final = 1_000
_SHORTEST_SECONDS: Final = 0.001
_ROOT: Final = 0
_CREDENTIALS: Final = struct.Struct("3i")


def ask(path: Path) -> None:
    """Make the reloader at this socket signal Mosquitto.

    Raises:
        BrokerSignalError: it is not there, or could not; the message names the remedy.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(path))
            answer = _read(connection)
    except OSError as error:
        raise BrokerSignalError(
            f"mosquitto_reload_socket: nobody answers at {path} ({error.strerror or error}): start the reloader "
            "(systemctl start device-gateway-reload), and let this user enter its directory"
        ) from error
    if answer != _OK:
        raise BrokerSignalError(escaped(answer.decode("utf-8", "replace")) or f"the reloader at {path} said nothing")


def _read(connection: socket.socket) -> bytes:
    """Read to the end, with a bound on bytes and time: the broker's user may have put another program there."""
    answer, until = b"", time.monotonic() + ANSWER_SECONDS
    while len(answer) < _LONGEST:
        connection.settimeout(max(_SHORTEST_SECONDS, until - time.monotonic()))
        piece = connection.recv(_LONGEST - len(answer))
        if not piece:
            break
        answer += piece
    return answer


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen at this path. A socket that an earlier reloader left there is replaced.

    Raises:
        OSError: it cannot listen there.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(str(path))
        path.chmod(0o666)  # the peer's user is checked below
        bound.listen(16)
        yield bound


def serve(bound: socket.socket, pid_file: Path, for_uid: int) -> None:
    """Serve one connection after the other, until the process is ended. ``for_uid``: the user of the gateway."""
    broker = PasswordFile(pid_file, pid_file=pid_file, fixed={})  # writes nothing; it keeps the distance of signals
    allowed = {_ROOT, os.geteuid(), for_uid}
    while True:
        connection, _ = bound.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(_answer(connection, broker, allowed))


def _answer(connection: socket.socket, broker: PasswordFile, allowed: set[int]) -> bytes:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    if uid not in allowed:
        return f"the reloader does nothing for the user with the number {uid}: start it with --for-user".encode()
    try:
        broker.reload()
    except BrokerSignalError as error:
        return error.message.encode()
    return _OK
