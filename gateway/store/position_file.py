"""Position file beside the registry: how far the registry was, so that a copy put back by hand shows.

The file is not part of a backup. It is overwritten in place, in one block. A torn or damaged one says nothing, and a
registry without it begins a new epoch, which costs nothing that works.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.store.epoch_sql import Position, position

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store.transaction import View

log = structlog.get_logger()

POSITION_NAME: Final = "gateway.position"
_LENGTH: Final = 512
_OPENED: Final = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def read_position(data_dir: Path) -> Position | None:
    """Return what the file says, or None when it is missing or cannot be parsed."""
    with suppress(OSError, ValueError, TypeError, LookupError):
        said: dict[str, Any] = json.loads((data_dir / POSITION_NAME).read_text("ascii"))
        if isinstance(said["base"], int) and isinstance(said["event_seq"], int):
            return Position(**said)
    return None


def note_position(data_dir: Path, view: View) -> None:
    """Write how far the registry is. One without an id is not recorded."""
    here = position(view)
    if here is not None:
        write_position(data_dir, here)


def write_position(data_dir: Path, here: Position) -> None:
    """Write the file, durable when this returns. A failure is logged, and does no harm.

    The file is then too old, but still reveals a copy from before it.
    """
    try:
        _write(data_dir, json.dumps(asdict(here)))
    except OSError as error:
        log.warning("registry.position_not_noted", file=str(data_dir / POSITION_NAME), reason=error.strerror)


def _write(data_dir: Path, text: str) -> None:
    content = text.ljust(_LENGTH - 1) + "\n"
    descriptor = os.open(data_dir / POSITION_NAME, _OPENED, 0o600)
    try:
        if os.geteuid() == 0:  # the command line of root made it, and the gateway's user must write it
            owner = data_dir.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.pwrite(descriptor, content.encode("ascii"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
