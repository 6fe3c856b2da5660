"""Sessions in the store that Mosquitto 2.0 saves: which of them expire.

A SIGHUP crashes Mosquitto 2.0 by sessions that expire (:mod:`gateway.broker.mosquitto.session_locks`). After a start
the gateway has to end those that were restored. A device of the contract has a session that never expires, so these are
few in a fleet of any size. The format is that of version 6 in ``persist.h`` of Mosquitto 2.0.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC: Final = b"\x00\xb5\x00mosquitto db"
VERSION: Final = 6
NEVER: Final = 0xFFFF_FFFF
_HEAD: Final = struct.Struct(f">{len(MAGIC)}sII")
_CHUNK: Final = struct.Struct(">II")
_CLIENT: Final = 6
_CLIENT_HEAD: Final = struct.Struct(">qIHHHHI")
"""When the session ends, expiry interval, last packet id, length of the client id, port, length of the user name, 0."""


class UnknownStoreError(Exception):
    """The store cannot be read, or has another format."""


def expiring(store: Path) -> set[str]:
    """Return the users whose saved session expires at some time; none where nothing is saved.

    It blocks: a million clients and retained messages take some seconds.

    Raises:
        UnknownStoreError: as above.
    """
    try:
        descriptor = os.open(store, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UnknownStoreError(f"{store} cannot be read ({error.strerror})") from error
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
            return set(_expiring(content))
    except (OSError, ValueError, struct.error) as error:
        raise UnknownStoreError(f"{store} has another format: {error}") from error
    finally:
        os.close(descriptor)


def _expiring(content: mmap.mmap) -> Iterator[str]:
    magic, _, version = _HEAD.unpack_from(content)
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError(f"version {version}")
    at, size, chunk = _HEAD.size, len(content), _CHUNK.unpack_from
    while at < size:
        kind, length = chunk(content, at)
        at += _CHUNK.size
        if at + length > size:
            raise ValueError("it ends within a chunk")
        if kind == _CLIENT:
            _, expiry, _, id_length, _, name_length, _ = _CLIENT_HEAD.unpack_from(content, at)
            begin = at + _CLIENT_HEAD.size
            client_id = content[begin : begin + id_length]
            name = content[begin + id_length : begin + id_length + name_length]
            if expiry not in (0, NEVER):
                yield (name or client_id).decode("utf-8", "replace")
        at += length
