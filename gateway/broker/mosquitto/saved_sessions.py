"""Sessions in the store that Mosquitto 2.0 saves: which of them expire.

A SIGHUP crashes Mosquitto 2.0 by sessions that expire (:mod:`gateway.broker.mosquitto.session_locks`). After a start
the gateway has to end those that were restored. A device of the contract has a session that never expires, so these are
few in a fleet of any size. The format is that of version 6 in ``persist.h`` of Mosquitto 2.0.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC: Final = b"\x00\xb5\x00mosquitto db"
VERSION: Final = 6
NEVER: Final = 0xFFFF_FFFF
BLOCK_BYTES: Final = 1 << 20
_HEAD: Final = struct.Struct(f">{len(MAGIC)}sII")
_CHUNK: Final = struct.Struct(">II")
_CLIENT: Final = 6
_CLIENT_HEAD: Final = struct.Struct(">qIHHHHI")
"""When the session ends, expiry interval, last packet id, length of the client id, port, length of the user name, 0."""


class UnknownStoreError(Exception):
    """The store cannot be read, or has another format."""


def expiring(store: Path) -> Iterator[str]:
    """Yield the users whose saved session expires at some time; none where nothing is saved.

    The store is read a block at a time. It stays the one that was there at first, though the broker may replace it. It
    blocks: a million clients and retained messages take some seconds.

    Raises:
        UnknownStoreError: as above, at any user.
    """
    try:
        descriptor = os.open(store, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnknownStoreError(f"{store} cannot be read ({error.strerror})") from error
    try:
        yield from _expiring(descriptor)
    except (OSError, ValueError, struct.error) as error:
        raise UnknownStoreError(f"{store} has another format: {error}") from error
    finally:
        os.close(descriptor)


def _expiring(store: int) -> Iterator[str]:
    """Read the store a block at a time, whatever its size."""
    magic, _, version = _HEAD.unpack(os.pread(store, _HEAD.size, 0))
    if (magic, version) != (MAGIC, VERSION):
        raise ValueError(f"version {version}")
    at, size, first, block = _HEAD.size, os.fstat(store).st_size, 0, b""
    while at < size:
        if at + _CHUNK.size > first + len(block):
            first, block = at, os.pread(store, BLOCK_BYTES, at)
        kind, length = _CHUNK.unpack_from(block, at - first)
        at += _CHUNK.size
        if at + length > size:
            raise ValueError("it ends within a chunk")
        if kind == _CLIENT:
            content = os.pread(store, length, at)
            _, expiry, _, id_length, _, name_length, _ = _CLIENT_HEAD.unpack_from(content)
            end = _CLIENT_HEAD.size + id_length
            if expiry not in (0, NEVER):
                yield (content[end : end + name_length] or content[_CLIENT_HEAD.size : end]).decode("utf-8", "replace")
        at += length
